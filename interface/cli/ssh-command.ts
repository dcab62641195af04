import { spawn } from 'node:child_process'
import { constants } from 'node:os'
import { join } from 'node:path'
import { failure } from '../../base/errors.ts'
import { isErrno } from '../../base/files.ts'
import type { VirtualMachine } from '../../resources/virtual-machine.ts'
import type { Identity } from './identity.ts'
import { phaseOf } from './machine.ts'

/** How a machine is reached by openssh. */
export interface SshTarget {
  host: string
  port: number
  /** Options for ssh and scp, before everything else. */
  options: string[]
}

/** What the user may choose. */
export interface SshChoices {
  settingsFolder: string
  /** Our own key pair, if there is one. */
  identity: Identity | undefined
  /** A private key of the user's (`--identity`). */
  identityPath?: string
  /** Further `-o` options. */
  sshOptions: readonly string[]
}

/**
 * How to reach a machine's SSH server through the port that its host forwards.
 * @throws sshUnreachable, saying what to do
 */
export function sshTarget(machine: VirtualMachine, choices: SshChoices): SshTarget {
  const { name } = machine.metadata
  const port = machine.status?.ports?.find(candidate => candidate.guestPort === 22)
  if (port === undefined) throw unreachable(machine)
  const any = port.hostAddress === '0.0.0.0' || port.hostAddress === '::'
  return {
    host: any ? '127.0.0.1' : port.hostAddress,
    port: port.hostPort,
    options: [...identityOptions(machine, choices), ...hostKeyOptions(name, machine, choices)],
  }
}

function unreachable(machine: VirtualMachine): Error {
  const { name } = machine.metadata
  const forwarded = machine.spec.ports?.some(port => port.guestPort === 22) ?? false
  const detail = forwarded ? `it is ${phaseOf(machine)}` : 'its port 22 is not forwarded'
  const advice = forwarded
    ? `\`macfleet start ${name} --wait\` starts it`
    : `Add guestPort 22 to its spec.ports, or use \`macfleet console ${name}\``
  return failure('sshUnreachable', { name, detail, advice })
}

function identityOptions(machine: VirtualMachine, choices: SshChoices): string[] {
  const { identity, identityPath } = choices
  if (identityPath !== undefined) return ['-i', identityPath, '-o', 'IdentitiesOnly=yes']
  if (identity === undefined) return []
  const [type, key] = identity.publicKey.split(' ')
  const ours = machine.spec.sshKeys?.some(line => line.startsWith(`${type} ${key}`)) ?? false
  // Only our key, because a server ends the connection when an agent with many keys offers them all.
  return ours ? ['-i', identity.path, '-o', 'IdentitiesOnly=yes'] : []
}

function hostKeyOptions(name: string, machine: VirtualMachine, choices: SshChoices): string[] {
  // A forwarded port is given to another machine in time; the uid is never given again.
  const alias = machine.metadata.uid ?? name
  const settings = [
    `UserKnownHostsFile=${quoted(join(choices.settingsFolder, 'known_hosts'))}`,
    `HostKeyAlias=${alias}`,
    'StrictHostKeyChecking=accept-new',
    'UpdateHostKeys=no',
    'CheckHostIP=no',
    'LogLevel=ERROR',
    ...choices.sshOptions,
  ]
  return settings.flatMap(setting => ['-o', setting])
}

/** ssh_config(5): arguments with spaces stand in double quotes. */
function quoted(path: string): string {
  return /[\s"]/.test(path) ? `"${path}"` : path
}

/**
 * Runs an interactive program on our terminal, to its end.
 * @returns its exit code, or 128 and the signal's number as shells report it
 * @throws commandMissing
 */
export function runOnTerminal(command: string, args: readonly string[]): Promise<number> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { stdio: 'inherit' })
    child.on('error', error => {
      reject(isErrno(error, 'ENOENT') ? failure('commandMissing', { command }) : error)
    })
    child.on('close', (code, signal) => {
      resolve(code ?? 128 + (signal === null ? 0 : constants.signals[signal]))
    })
  })
}
