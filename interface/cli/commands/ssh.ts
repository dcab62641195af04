import type { Command } from 'commander'
import { collect, connect, optionsOf } from '../command-module.ts'
import { durationOption } from '../duration-option.ts'
import type { Invocation } from '../invocation.ts'
import { openSsh } from '../ssh-session.ts'
import { machineNameOf } from '../targets.ts'

interface SshOptions {
  user: string
  identity?: string
  sshOption?: string[]
  timeout: string
}

/** `macfleet ssh`. */
export function define(command: Command, invocation: Invocation): void {
  command
    .argument('<vm>', 'virtual machine, also USER@VM')
    .argument('[command...]', 'after `--`: run this instead of a shell, and end with its exit code')
    .option('--user <name>', 'user to log in as', 'root')
    .option('--identity <file>', 'private key (default: ours, else those openssh finds)')
    .option('--ssh-option <option>', 'option for openssh, as its own -o; repeatable', collect)
    .option('--timeout <duration>', 'how long to wait for a machine that is starting', '2m')
    .addHelpText(
      'after',
      `
Examples:
  macfleet ssh web
  macfleet ssh admin@web -- uname -a
  macfleet ssh web --ssh-option 'LocalForward=8080 localhost:80'`,
    )
    .action(async (vm: string, words: string[]) => {
      const options = optionsOf<SshOptions>(command)
      const at = vm.lastIndexOf('@')
      const user = at > 0 ? vm.slice(0, at) : options.user
      const init = {
        name: machineNameOf(vm.slice(at + 1), 'macfleet ssh'),
        user,
        timeoutMs: durationOption(options.timeout, '--timeout', 'macfleet ssh'),
        words,
        identityPath: options.identity,
        sshOptions: options.sshOption ?? [],
      }
      const connection = await connect(invocation, command)
      invocation.setExitCode(await openSsh(init, connection, invocation))
    })
}
