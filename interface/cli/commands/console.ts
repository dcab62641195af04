import type { Command } from 'commander'
import { failure } from '../../../base/errors.ts'
import { connect } from '../command-module.ts'
import type { Invocation } from '../invocation.ts'
import { virtualMachineName } from '../kinds.ts'
import { note, write } from '../output.ts'
import { readKeys, withRawTerminal } from '../raw-terminal.ts'
import { objectPath } from '../resource-client.ts'
import { machineNameOf } from '../targets.ts'
import { openWebSocket, sessionError, type WebSocketSession } from '../web-socket.ts'

/** `macfleet console`. */
export function define(command: Command, invocation: Invocation): void {
  command
    .argument('<vm>', 'virtual machine')
    .addHelpText(
      'after',
      `
Ctrl-] leaves the console; the machine goes on. Several may watch and type at once.

Examples:
  macfleet console web
  printf 'uname -a\\n' | macfleet console web`,
    )
    .action(async (vm: string) => {
      const name = machineNameOf(vm, 'macfleet console')
      const { client, namespace } = await connect(invocation, command)
      const path = `${objectPath(virtualMachineName, namespace, name)}/console`
      const session = await openWebSocket(client, { path, protocols: [] }, invocation.signal)
      const left = await withRawTerminal(invocation, async () => {
        if (invocation.stdin.isTTY === true) {
          await note(invocation, `Console of ${name}. Leave it with Ctrl-].`)
        }
        return converse(session, invocation)
      })
      if (left === 'escape') await note(invocation, '', `Left the console of ${name}; it goes on.`)
    })
}

/** Carries bytes both ways until the escape key or the end of the console. */
async function converse(
  session: WebSocketSession,
  invocation: Invocation,
): Promise<'escape' | 'end'> {
  const ending = new AbortController()
  const typing = type(session, invocation, ending.signal)
  const printing = show(session, invocation)
  try {
    // The end of the input alone does not end a session: its output is what was asked for.
    const escaped = typing.then(hasLeft => (hasLeft ? 'escape' : printing))
    return await Promise.race([escaped, printing])
  } finally {
    ending.abort()
    session.stream.destroy()
    await Promise.allSettled([typing, printing])
  }
}

async function type(
  { stream }: WebSocketSession,
  { stdin, signal }: Invocation,
  ending: AbortSignal,
): Promise<boolean> {
  const keys = readKeys(stdin, AbortSignal.any([signal, ending]))
  while (true) {
    const next = await keys.next()
    if (next.done === true) return next.value
    if (!stream.writable) return false
    if (!stream.write(next.value)) await drained(stream)
  }
}

function drained(stream: NodeJS.EventEmitter): Promise<void> {
  return new Promise(resolve => {
    stream.once('drain', resolve)
    stream.once('close', resolve)
  })
}

async function show(session: WebSocketSession, invocation: Invocation): Promise<'end'> {
  try {
    for await (const chunk of session.stream) await write(invocation.stdout, chunk)
  } catch (thrown) {
    if (!session.stream.destroyed) throw sessionError(thrown)
  }
  if (invocation.signal.aborted) throw invocation.signal.reason
  const reason = session.stream.readableAborted ? '' : await session.ended
  if (reason !== '') throw failure('connectionBroke', { detail: reason })
  return 'end'
}
