import { execFile } from 'node:child_process'
import { messageOf } from '../../base/errors.ts'
import type { Log } from '../../base/log.ts'

const timeoutMs = 10_000

/**
 * The arguments with which busctl asks systemd to move a process into a scope of its own
 * (org.freedesktop.systemd1.Manager, StartTransientUnit). `Before=macfleetd.service` is about
 * stopping, whose order is the reverse: when the machine shuts down, the daemon ends first and may
 * let its guests shut down, and only then are the scopes stopped.
 */
export function scopeArguments(name: string, pid: number, slice: string): string[] {
  const properties = [
    ['PIDs', 'au', '1', String(pid)],
    ['Slice', 's', slice],
    ['Description', 's', `macfleet guest ${name}`],
    ['CollectMode', 's', 'inactive-or-failed'],
    ['Before', 'as', '1', 'macfleetd.service'],
  ]
  return [
    'call',
    'org.freedesktop.systemd1',
    '/org/freedesktop/systemd1',
    'org.freedesktop.systemd1.Manager',
    'StartTransientUnit',
    'ssa(sv)a(sa(sv))',
    `macfleet-guest-${name}-${pid}.scope`,
    'fail',
    String(properties.length),
    ...properties.flat(),
    '0',
  ]
}

/**
 * Moves a process of ours into a scope of a slice, so that limits and accounting are per guest. Done
 * beside the guest's start, which does not wait for it; without a scope the guest runs all the same,
 * among the guardian's own processes.
 */
export function moveToScope(name: string, pid: number, slice: string, log: Log): void {
  execFile('busctl', scopeArguments(name, pid, slice), { timeout: timeoutMs }, error => {
    if (error)
      log.warn({ name, pid, error: messageOf(error) }, 'the process has no scope of its own')
  })
}
