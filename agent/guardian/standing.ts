import { execFileSync } from 'node:child_process'
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { getPriority, setPriority } from 'node:os'
import { messageOf } from '../../base/errors.ts'
import type { Log } from '../../base/log.ts'

/** flock's exit code when another process holds a lock. */
export const lockedExitCode = 75
const guardianNice = -10
const guardianOomScoreAdjust = -1000

/**
 * The command that becomes `command` once it holds all locks. They stay with that process as open
 * descriptors, whatever way it ends, and are not given to its children: Node marks what it inherits
 * close-on-exec.
 */
export function lockedCommand(locks: readonly string[], command: readonly string[]): string[] {
  const conflict = String(lockedExitCode)
  const flock = ['flock', '--nonblock', '--no-fork', '--conflict-exit-code', conflict]
  return [...locks.flatMap(lock => [...flock, lock]), ...command]
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
 * when the processor is short. Systemd's unit does the same, and then nothing is left to do.
 */
export function raiseStanding(log: Log): void {
  if (process.getuid?.() !== 0) return
  for (const raise of [raiseOomScore, raisePriority]) {
    try {
      raise()
    } catch (error) {
      log.warn({ error: messageOf(error) }, 'the guardian has the standing of any other process')
    }
  }
}

function raiseOomScore(): void {
  const path = '/proc/self/oom_score_adj'
  if (Number(readFileSync(path, 'utf8')) === guardianOomScoreAdjust) return
  writeFileSync(path, String(guardianOomScoreAdjust))
}

/** Children start at nice 0: reset-on-fork (sched(7)) keeps them from inheriting ours. */
function raisePriority(): void {
  if (getPriority() <= guardianNice) return
  const args = ['--reset-on-fork', '--other', '--pid', '0', String(process.pid)]
  execFileSync('chrt', args, { stdio: ['ignore', 'ignore', 'pipe'] })
  setPriority(guardianNice)
}
