import { spawn } from 'node:child_process'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { StringDecoder } from 'node:string_decoder'
import { assert, failure } from '../base/errors.ts'
import { onlyStreams } from '../base/inherited-descriptors.ts'
import type { Limits } from '../base/limits.ts'
import type { ExecRequest, ExecSession, RunCommand } from '../interface/api/subresources.ts'
import type { AccessKey } from './access-key.ts'
import type { Runtime } from './machine/runtime.ts'
import type { Tracked } from './machine/tracked.ts'

/** What running commands in guests needs. */
export interface ExecComponents {
  limits: Limits
  accessKey: AccessKey | undefined
}

/**
 * How long a program may run in a guest through its agent, which keeps its output until it ends.
 */
const agentTimeoutMs = 600_000
const agentPingMs = 3000

/**
 * Chooses a way into a guest. Without a terminal the guest agent runs the command, which needs no
 * network and no login; with one, or where no agent answers, it goes over SSH.
 * @throws execUnavailable when there is neither
 */
export async function prepareExec(
  tracked: Tracked,
  request: ExecRequest,
  components: ExecComponents,
): Promise<RunCommand> {
  const { runtime, name } = tracked
  if (runtime === undefined) throw failure('execUnavailable', { name, detail: 'it does not run' })
  if (!request.tty && (await agentAnswers(runtime))) {
    return session => runByAgent(tracked, request, session, components.limits)
  }
  const args = sshArguments(tracked, request, components.accessKey)
  if (args === undefined) {
    const detail = request.tty
      ? 'a terminal goes over SSH, and its port 22 is not offered'
      : 'its agent does not answer, and its port 22 is not offered'
    throw failure('execUnavailable', { name, detail })
  }
  return session => (request.tty ? runInTerminal(args, session) : runBySsh(args, session))
}

/** Asks: an agent that answered once may have died since. */
async function agentAnswers(runtime: Runtime): Promise<boolean> {
  if (!runtime.agentConnected()) return false
  return await runtime.agent.ping({ timeoutMs: agentPingMs }).then(
    () => true,
    () => false,
  )
}

async function runByAgent(
  tracked: Tracked,
  { command, stdin }: ExecRequest,
  session: ExecSession,
  limits: Limits,
): Promise<{ exitCode: number }> {
  const [path = '', ...args] = command
  const input = stdin ? await readAll(session.input, limits.requestBodyBytes) : undefined
  const agent = tracked.runtime?.agent
  if (agent === undefined) {
    throw failure('execUnavailable', { name: tracked.name, detail: 'it ended' })
  }
  const options = { timeoutMs: agentTimeoutMs, signal: session.signal }
  const result = await agent.execute({ path, args, ...(input && { input }) }, options)
  await session.send('stdout', result.stdout)
  await session.send('stderr', result.stderr)
  // As a shell counts: 128 and the signal's number.
  return { exitCode: result.code ?? 128 + (result.signal ?? 0) }
}

async function readAll(stream: Readable, limitBytes: number): Promise<Buffer> {
  const chunks: Buffer[] = []
  let seenBytes = 0
  for await (const chunk of stream) {
    seenBytes += chunk.length
    if (seenBytes > limitBytes) throw failure('tooLarge', { limitBytes })
    chunks.push(chunk)
  }
  return Buffer.concat(chunks)
}

function sshArguments(
  { record, folder, uid }: Tracked,
  { command, tty }: ExecRequest,
  accessKey: AccessKey | undefined,
): string[] | undefined {
  const forward = record?.forwards.find(at => at.guestPort === 22 && at.protocol === 'TCP')
  if (forward === undefined || accessKey === undefined) return undefined
  const settings = [
    'BatchMode=yes',
    'IdentitiesOnly=yes',
    'StrictHostKeyChecking=accept-new',
    'LogLevel=ERROR',
    `UserKnownHostsFile=${join(folder.path, 'known_hosts')}`,
    `HostKeyAlias=${uid}`,
  ]
  return [
    ...['-F', 'none', '-i', accessKey.path],
    ...settings.flatMap(setting => ['-o', setting]),
    ...['-p', String(forward.hostPort), '-l', 'root', tty ? '-tt' : '-T'],
    ...[forward.hostAddress, '--', shellLine(command)],
  ]
}

/** ssh hands the far shell one line: each word must survive it as it is. */
export function shellLine(words: readonly string[]): string {
  return words.map(word => `'${word.replaceAll("'", `'\\''`)}'`).join(' ')
}

function runBySsh(args: readonly string[], session: ExecSession): Promise<{ exitCode: number }> {
  return new Promise((resolve, reject) => {
    const stdio = onlyStreams('pipe', 'pipe', 'pipe')
    const child = spawn('ssh', args, { stdio, signal: session.signal })
    assert(child.stdin && child.stdout && child.stderr, 'ssh was given no pipes')
    child.stdin.on('error', () => {})
    session.input.pipe(child.stdin)
    const sent = [
      forward(child.stdout, bytes => session.send('stdout', bytes)),
      forward(child.stderr, bytes => session.send('stderr', bytes)),
    ]
    // Waited for from now on: a client that leaves before ssh ends is no failure of the daemon.
    const allSent = Promise.all(sent)
    allSent.catch(error => {
      child.kill('SIGHUP')
      reject(error)
    })
    child.on('error', reject)
    child.on('close', code => {
      allSent.then(() => resolve({ exitCode: code ?? 255 }), reject)
    })
  })
}

async function forward(stream: Readable, send: (bytes: Buffer) => Promise<void>): Promise<void> {
  for await (const chunk of stream) await send(chunk)
}

/**
 * node-pty hands our descriptors on (see base/inherited-descriptors.ts) and can't be told not to:
 * bash closes them, then becomes the program.
 */
const closeAndRun =
  'for path in /proc/$$/fd/*; do fd=${path##*/}; ' +
  '(( fd > 2 )) && eval "exec $fd>&-"; done; exec "$@"'

async function runInTerminal(
  args: readonly string[],
  session: ExecSession,
): Promise<{ exitCode: number }> {
  const { spawn: spawnTerminal } = await import('node-pty')
  const terminal = spawnTerminal('bash', ['-c', closeAndRun, 'bash', 'ssh', ...args], {
    name: 'xterm-256color',
    encoding: null,
    env: { PATH: process.env['PATH'], TERM: 'xterm-256color' },
  })
  let hasEnded = false
  session.onResize(({ columns, rows }) => {
    try {
      if (!hasEnded) terminal.resize(columns, rows)
    } catch {
      // Its program has ended, and the event that says so is on its way.
    }
  })
  // A character may come in two pieces.
  const decoder = new StringDecoder('utf8')
  session.input.on('data', (bytes: Buffer) => {
    if (!hasEnded) terminal.write(decoder.write(bytes))
  })
  const hangUp = () => {
    if (!hasEnded) terminal.kill('SIGHUP')
  }
  session.signal.addEventListener('abort', hangUp)
  if (session.signal.aborted) hangUp()
  let sending = Promise.resolve()
  terminal.onData(data => {
    // With encoding null, data are bytes, whatever the type says.
    const bytes = Buffer.from(data)
    terminal.pause()
    const sent = sending.then(() => session.send('stdout', bytes))
    sending = sent.catch(hangUp).finally(() => {
      if (!hasEnded) terminal.resume()
    })
  })
  const { promise: ended, resolve } = Promise.withResolvers<number>()
  terminal.onExit(({ exitCode }) => {
    hasEnded = true
    resolve(exitCode)
  })
  const exitCode = await ended
  session.signal.removeEventListener('abort', hangUp)
  await sending
  return { exitCode }
}
