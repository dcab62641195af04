import { failure } from '../../base/errors.ts'
import type { Invocation } from './invocation.ts'
import { write } from './output.ts'
import { chunksOf } from './raw-terminal.ts'
import { statusObjectError } from './status-error.ts'
import { isRecord, memberAt } from './untyped.ts'
import type { WebSocketSession } from './web-socket.ts'

/**
 * Subprotocols of a remote command (k8s.io/apimachinery/pkg/util/remotecommand): the first byte of
 * each message is its channel; v5 can also say that a channel has ended.
 */
export const execProtocols = ['v5.channel.k8s.io', 'v4.channel.k8s.io'] as const

const channels = { stdin: 0, stdout: 1, stderr: 2, status: 3, resize: 4, close: 255 } as const

/** A message on a channel. */
export function frame(channel: keyof typeof channels, bytes: Uint8Array | string): Buffer {
  return Buffer.concat([Buffer.from([channels[channel]]), Buffer.from(bytes)])
}

/** The message that tells that no more input comes. */
export const endOfInput: Buffer = Buffer.from([channels.close, channels.stdin])

/**
 * The exit code that the last message tells.
 * @throws StatusError when the command was not run to its end
 */
export function readExitCode(bytes: Uint8Array): number {
  const status: unknown = JSON.parse(Buffer.from(bytes).toString('utf8'))
  if (!isRecord(status)) throw failure('answerInvalid', { request: 'exec', detail: 'no status' })
  if (status['status'] === 'Success') return 0
  const causes = memberAt(status, 'details.causes')
  const exit = Array.isArray(causes)
    ? causes.find(cause => isRecord(cause) && cause['reason'] === 'ExitCode')
    : undefined
  const code = Number(isRecord(exit) ? exit['message'] : Number.NaN)
  if (Number.isInteger(code)) return code
  throw statusObjectError(status, 500)
}

/** What goes into the command. */
export interface ExecInput {
  /** Send what is typed or piped in. */
  stdin: boolean
  /** The command has a terminal of the size of ours. */
  tty: boolean
}

/**
 * Carries input and output of a remote command until it ends.
 * @returns its exit code
 */
export async function runSession(
  session: WebSocketSession,
  input: ExecInput,
  invocation: Invocation,
): Promise<number> {
  const ending = new AbortController()
  const { stream } = session
  const resize = () => {
    const { columns, rows } = invocation.stdout
    // Without a terminal of ours the command keeps the size that its own begins with.
    if (columns === undefined || rows === undefined || !stream.writable) return
    stream.write(frame('resize', JSON.stringify({ Width: columns, Height: rows })))
  }
  if (input.tty) {
    resize()
    invocation.stdout.on('resize', resize)
  }
  const sending = input.stdin ? send(session, invocation, ending.signal) : Promise.resolve()
  try {
    return await receive(session, invocation)
  } finally {
    ending.abort()
    invocation.stdout.off('resize', resize)
    stream.destroy()
    await Promise.allSettled([sending])
  }
}

async function send(
  { stream, protocol }: WebSocketSession,
  { stdin, signal }: Invocation,
  ending: AbortSignal,
): Promise<void> {
  const stop = AbortSignal.any([signal, ending])
  for await (const chunk of chunksOf(stdin, stop)) {
    if (!stream.writable) return
    if (stream.write(frame('stdin', chunk))) continue
    await new Promise<void>(resolve => {
      stream.once('drain', resolve)
      stream.once('close', resolve)
    })
  }
  if (!stop.aborted && stream.writable && protocol === execProtocols[0]) stream.write(endOfInput)
}

async function receive(session: WebSocketSession, invocation: Invocation): Promise<number> {
  try {
    for await (const message of session.stream) {
      if (!Buffer.isBuffer(message) || message.length === 0) continue
      const bytes = message.subarray(1)
      if (message[0] === channels.stdout) await write(invocation.stdout, bytes)
      else if (message[0] === channels.stderr) await write(invocation.stderr, bytes)
      else if (message[0] === channels.status) return readExitCode(bytes)
    }
  } catch (thrown) {
    if (invocation.signal.aborted) throw invocation.signal.reason
    throw thrown
  }
  if (invocation.signal.aborted) throw invocation.signal.reason
  const detail = (await session.ended) || 'the command may still be running'
  throw failure('connectionBroke', { detail })
}
