import { spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import type { Command } from 'commander'
import { optionsOf } from '../command-module.ts'
import { exitCodes } from '../exit-code.ts'
import type { Invocation } from '../invocation.ts'

interface DevCommandOptions {
  hosts: string
  racks: string
  separate?: boolean
  detach?: boolean
  stop?: boolean
}

/** `macfleet dev`. */
export function define(command: Command, invocation: Invocation): void {
  command
    .description('a fleet of hosts on this machine, to play with (needs root)')
    .option('--hosts <count>', 'how many', '3')
    .option('--racks <count>', 'into how many racks they are spread', '1')
    .option('--separate', 'leave them single hosts')
    .option('--detach', 'end when all of it runs, and leave it running')
    .option('--stop', 'end what runs detached')
    .addHelpText(
      'after',
      `
Each host is a network namespace with a daemon of its own; a rack is a bridge, and a router without
a way out joins the racks. Ctrl-C ends all of it, and nothing is left.

Examples:
  macfleet dev --hosts 6 --racks 2
  macfleet dev --detach`,
    )
    .action(async () => {
      const { hosts, racks, separate, detach, stop } = optionsOf<DevCommandOptions>(command)
      const flags = Object.entries({ separate, detach, stop }).filter(([, given]) => given)
      const words = ['--hosts', hosts, '--racks', racks, ...flags.map(([name]) => `--${name}`)]
      invocation.setExitCode(await runDaemon(['dev', ...words], invocation.signal))
    })
}

/**
 * Runs a program of the daemon's, which this one may not load, in our terminal. It cleans up after
 * itself, so it is asked to end and then waited for.
 */
function runDaemon(args: readonly string[], signal: AbortSignal): Promise<number> {
  const program = fileURLToPath(new URL('../../../bin/macfleetd', import.meta.url))
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio: 'inherit' })
    signal.addEventListener('abort', () => child.kill('SIGTERM'))
    child.once('error', reject)
    const killed = () => (signal.aborted ? exitCodes.interrupted : exitCodes.failure)
    child.once('exit', code => resolve(code ?? killed()))
  })
}
