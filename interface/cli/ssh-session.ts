import { awaitMachine } from './await-machine.ts'
import type { Connection } from './command-module.ts'
import { settingsFolder } from './context.ts'
import { readIdentity } from './identity.ts'
import type { Invocation } from './invocation.ts'
import { conditionOf, getMachine, judgeReady, phaseOf } from './machine.ts'
import { runOnTerminal, type SshTarget, sshTarget } from './ssh-command.ts'

/** Who logs in where. */
export interface SshSessionInit {
  name: string
  user: string
  /** How long a machine that is starting is waited for. */
  timeoutMs: number
  /** The command; a login shell when empty. */
  words: readonly string[]
  identityPath?: string
  sshOptions?: readonly string[]
}

const coming = new Set(['Pending', 'Pulling', 'Starting'])

/** How to reach a machine by SSH; one that is just starting is waited for. */
export async function findSshTarget(
  init: Pick<SshSessionInit, 'name' | 'timeoutMs' | 'identityPath' | 'sshOptions'>,
  connection: Connection,
  invocation: Invocation,
): Promise<SshTarget> {
  const { name, timeoutMs, identityPath } = init
  let machine = await getMachine(connection.client, connection.namespace, name)
  const running = phaseOf(machine) === 'Running'
  const booting = running && conditionOf(machine, 'Ready')?.status === 'False'
  if (coming.has(phaseOf(machine)) || booting) {
    const waiting = { name, wanted: 'Ready', timeoutMs, judge: judgeReady }
    machine = await awaitMachine(waiting, connection, invocation)
  }
  const folder = settingsFolder(invocation.environment)
  const identity = await readIdentity(folder)
  const sshOptions = init.sshOptions ?? []
  return sshTarget(machine, { settingsFolder: folder, identity, identityPath, sshOptions })
}

/**
 * Logs in by openssh, on our terminal.
 * @returns ssh's exit code: the command's own, or 255 when the connection failed
 */
export async function openSsh(
  init: SshSessionInit,
  connection: Connection,
  invocation: Invocation,
): Promise<number> {
  const target = await findSshTarget(init, connection, invocation)
  const { host, port, options } = target
  const command = init.words.length === 0 ? [] : ['--', ...init.words]
  const destination = `${init.user}@${host}`
  return runOnTerminal('ssh', [...options, '-p', String(port), destination, ...command])
}
