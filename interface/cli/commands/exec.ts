import type { Command } from 'commander'
import { connect, optionsOf } from '../command-module.ts'
import { type ExecInput, execProtocols, runSession } from '../exec-session.ts'
import type { Invocation } from '../invocation.ts'
import { virtualMachineName } from '../kinds.ts'
import { withRawTerminal } from '../raw-terminal.ts'
import { objectPath } from '../resource-client.ts'
import { machineNameOf } from '../targets.ts'
import { openWebSocket } from '../web-socket.ts'

interface ExecOptions {
  stdin?: boolean
  tty?: boolean
}

/** `macfleet exec`. */
export function define(command: Command, invocation: Invocation): void {
  command
    .argument('<vm>', 'virtual machine')
    .argument('<command...>', 'after `--`: program and arguments; no shell reads them')
    .option('-i, --stdin', 'hand over standard input')
    .option('-t, --tty', 'give the command a terminal')
    .addHelpText(
      'after',
      `
The guest agent runs the command; neither network nor SSH are needed. Its exit code is ours.

Examples:
  macfleet exec web -- uname -a
  macfleet exec web -- sh -c 'df -h / | tail -1'
  macfleet exec web -it -- sh
  tar c src | macfleet exec web -i -- tar x -C /tmp`,
    )
    .action(async (vm: string, words: string[]) => {
      const options = optionsOf<ExecOptions>(command)
      const name = machineNameOf(vm, 'macfleet exec')
      const tty = options.tty === true
      const input: ExecInput = { tty, stdin: options.stdin === true }
      const { client, namespace } = await connect(invocation, command)
      const path = `${objectPath(virtualMachineName, namespace, name)}/exec`
      const init = { path, query: queryOf(words, input), protocols: execProtocols }
      const session = await openWebSocket(client, init, invocation.signal)
      const run = () => runSession(session, input, invocation)
      invocation.setExitCode(await (tty ? withRawTerminal(invocation, run) : run()))
    })
}

/** The parameters of PodExecOptions: one `command` per word. */
function queryOf(words: readonly string[], input: ExecInput): URLSearchParams {
  const query = new URLSearchParams()
  for (const word of words) query.append('command', word)
  query.set('stdin', String(input.stdin))
  query.set('stdout', 'true')
  query.set('stderr', String(!input.tty))
  query.set('tty', String(input.tty))
  return query
}
