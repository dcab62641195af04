import { readdirSync, statSync, writeFileSync } from 'node:fs'
import { setPriority } from 'node:os'
import { messageOf } from '../../base/errors.ts'
import type { Log } from '../../base/log.ts'

/** flock's exit code when another process holds a lock. */
export const lockedExitCode = 75
const guardianNice = -10
const guardianOomScoreAdjust = -1000

/**
 * The command that becomes `command` once it holds all locks. They stay with that process as open
 * descriptors, whatever way it ends, and are not given to its children: Node marks what it
 * inherits close-on-exec. Reset-on-fork (sched(7)) keeps children from inheriting a raised
 * priority.
 */
export function lockedCommand(locks: readonly string[], command: readonly string[]): string[] {
  const conflict = String(lockedExitCode)
  const flock = ['flock', '--nonblock', '--no-fork', '--conflict-exit-code', conflict]
  return [
    ...locks.flatMap(lock => [...flock, lock]),
    ...['chrt', '--reset-on-fork', '--other', '0'],
    ...command,
  ]
}

/** Whether this process has all these files open, as `lockedCommand` leaves it. */
export function holdsLocks(locks: readonly string[]): boolean {
  const open = new Set(readdirSync('/proc/self/fd').map(name => nameInode(`/proc/self/fd/${name}`)))
  return locks.every(lock => open.has(nameInode(lock) ?? 'none'))
}

function nameInode(path: string): string | undefined {
  const stats = statSync(path, { throwIfNoEntry: false })
  return stats && `${stats.dev}:${stats.ino}`
}

/**
 * As root, puts this process before all others: last to be killed when memory ends, first to run
 * when the processor is short. Under systemd the unit did the same already.
 */
export function raiseStanding(log: Log): void {
  if (process.getuid?.() !== 0) return
  const steps = [
    () => writeFileSync('/proc/self/oom_score_adj', String(guardianOomScoreAdjust)),
    () => setPriority(process.pid, guardianNice),
  ]
  for (const step of steps) {
    try {
      step()
    } catch (error) {
      log.warn({ error: messageOf(error) }, 'the guardian has the standing of any other process')
    }
  }
}
