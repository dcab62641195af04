import type { Command } from 'commander'
import { failure } from '../../../base/errors.ts'
import { collect, connect, optionsOf } from '../command-module.ts'
import { durationOption } from '../duration-option.ts'
import type { Invocation } from '../invocation.ts'
import { runOnTerminal } from '../ssh-command.ts'
import { findSshTarget } from '../ssh-session.ts'

interface CpOptions {
  recursive?: boolean
  legacy?: boolean
  user: string
  identity?: string
  sshOption?: string[]
  timeout: string
}

const wrong = (detail: string) => failure('usageWrong', { detail, command: 'macfleet cp' })

/** A file here, or in a virtual machine. */
export interface Place {
  machine?: string
  user?: string
  path: string
}

/** Reads `VM:PATH`, `USER@VM:PATH` or a path here; `./a:b` is a path here, as scp has it. */
export function readPlace(text: string): Place {
  const match = /^(?:([^@/:]+)@)?([^/:]+):(.*)$/.exec(text)
  const [, user, machine, path] = match ?? []
  if (machine === undefined || path === undefined) return { path: text }
  return { machine, path, ...(user === undefined ? {} : { user }) }
}

/** `macfleet cp`. */
export function define(command: Command, invocation: Invocation): void {
  command
    .argument('<from>', 'file here, or VM:PATH')
    .argument('<to>', 'file here, or VM:PATH')
    .option('-r, --recursive', 'folders with all that is in them')
    .option('--legacy', 'use the scp protocol, for guests without an SFTP server')
    .option('--user <name>', 'user to log in as', 'root')
    .option('--identity <file>', 'private key (default: ours, else those openssh finds)')
    .option('--ssh-option <option>', 'option for openssh, as its own -o; repeatable', collect)
    .option('--timeout <duration>', 'how long to wait for a machine that is starting', '2m')
    .addHelpText(
      'after',
      `
Examples:
  macfleet cp build.tar web:/tmp/
  macfleet cp -r web:/var/log ./log`,
    )
    .action(async (from: string, to: string) => {
      const options = optionsOf<CpOptions>(command)
      const places = [readPlace(from), readPlace(to)]
      const remote = places.filter(place => place.machine !== undefined)
      const [place] = remote
      if (place?.machine === undefined) throw wrong('neither end is in a virtual machine (VM:PATH)')
      if (remote.length > 1) throw wrong('one end must be here')
      const init = {
        name: place.machine,
        timeoutMs: durationOption(options.timeout, '--timeout', 'macfleet cp'),
        identityPath: options.identity,
        sshOptions: options.sshOption ?? [],
      }
      const connection = await connect(invocation, command)
      const target = await findSshTarget(init, connection, invocation)
      const host = target.host.includes(':') ? `[${target.host}]` : target.host
      const name = (end: Place) =>
        end.machine === undefined ? end.path : `${end.user ?? options.user}@${host}:${end.path}`
      const flags = [
        ...(options.recursive === true ? ['-r'] : []),
        ...(options.legacy === true ? ['-O'] : []),
      ]
      const args = [
        ...target.options,
        '-P',
        String(target.port),
        ...flags,
        '--',
        ...places.map(name),
      ]
      invocation.setExitCode(await runOnTerminal('scp', args))
    })
}
