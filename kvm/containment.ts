import type { UserIdentity } from './guest-user.ts'

/** What a guest's process may be given on this host. */
export interface ContainmentFacts {
  /** Whether the daemon is root and can give guests users of their own. */
  root: boolean
  /** Whether systemd is PID 1 and can give guests scopes of their own. */
  systemd: boolean
  /** Whether the firewall for the guests' users is up. */
  firewall: boolean
}

/** A process to be contained. */
export interface ContainmentInit {
  /** QEMU and its arguments. */
  command: string
  args: readonly string[]
  /** The guest's user; undefined when there is no root to change to it. */
  user: UserIdentity | undefined
  /** The group that may open /dev/kvm, for a guest that is executed by KVM. */
  kvmGroupId: number | undefined
  /** The name of the scope, without its suffix; new for each start. */
  unit: string
}

/** What the guardian spawns, from its main thread, in the guest's folder. */
export interface ContainedCommand {
  command: string
  args: string[]
}

/** The slice that holds every guest's scope. */
export const guestSlice = 'macfleet-guests.slice'

/**
 * The one command that runs a guest within its bounds. Each program in it replaces itself by the
 * next, so the process that the guardian spawned is QEMU in the end, and it is the last, setpriv,
 * that asks the kernel to kill it when the guardian dies: a change of user after that would undo it
 * (prctl(2), PR_SET_PDEATHSIG).
 *
 * nice 19 and choom: below the daemon whatever raised priority the guardian has; the kernel, out of
 * memory, takes guests first. No core dumps: they hold the guest's memory. Other limits are the
 * guardian's. QEMU's own `-sandbox` is part of its command line.
 */
export function containedCommand(init: ContainmentInit, facts: ContainmentFacts): ContainedCommand {
  const [command = '', ...args] = [
    ...(facts.systemd && facts.root ? scope(init.unit) : []),
    ...['nice', '-n', '39'],
    ...['choom', '-n', '500', '--'],
    ...['prlimit', '--core=0'],
    ...['setpriv', '--pdeathsig', 'KILL', '--no-new-privs', '--inh-caps=-all'],
    ...(init.user ? ownUser(init.user, init.kvmGroupId) : []),
    ...['--', init.command, ...init.args],
  ]
  return { command, args }
}

function scope(unit: string): string[] {
  const options = [
    '--scope',
    '--quiet',
    '--collect',
    `--slice=${guestSlice}`,
    `--unit=${unit}.scope`,
  ]
  return ['systemd-run', ...options, '--']
}

function ownUser(user: UserIdentity, kvmGroupId: number | undefined): string[] {
  return [
    `--reuid=${user.userId}`,
    `--regid=${user.groupId}`,
    kvmGroupId === undefined ? '--clear-groups' : `--groups=${kvmGroupId}`,
    '--ambient-caps=-all',
    '--bounding-set=-all',
  ]
}

/**
 * What is lacking of a guest's containment on this host, a sentence each; empty when all is there.
 */
export function missingContainment(facts: ContainmentFacts): string[] {
  const missing: string[] = []
  if (!facts.root) {
    missing.push('not root: guests run as the user of the daemon and could reach its files')
  }
  if (!facts.firewall) {
    missing.push("no firewall: guests can reach services on this host's loopback and networks")
  }
  return missing
}
