import { readFileSync } from 'node:fs'

/**
 * Names one process for good: a pid alone is used again by the kernel, the pair with its start time
 * is not (proc(5), /proc/PID/stat field 22, in clock ticks since boot).
 */
export interface ProcessIdentity {
  pid: number
  startTicks: number
}

interface ProcessStat extends ProcessIdentity {
  state: string
  threads: number
}

/** Reads /proc/PID/stat; undefined when there is no such process. */
function readStat(pid: number): ProcessStat | undefined {
  let text: string
  try {
    text = readFileSync(`/proc/${pid}/stat`, 'utf8')
  } catch {
    return undefined
  }
  // The name in parentheses may hold anything, parentheses and spaces too: count from its end.
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
  return {
    pid,
    state: fields[0] ?? 'X',
    threads: Number(fields[17]),
    startTicks: Number(fields[19]),
  }
}

/**
 * The identity of a process that runs now; undefined when it does not. A zombie does not, but for
 * one whose other threads have not ended yet: they hold its files and locks until then.
 */
export function identify(pid: number): ProcessIdentity | undefined {
  const stat = readStat(pid)
  if (stat === undefined || stat.state === 'X') return undefined
  if (stat.state === 'Z' && stat.threads <= 1) return undefined
  return { pid: stat.pid, startTicks: stat.startTicks }
}

/**
 * The identity of a child of this process that was not yet reaped: it may have ended already (a
 * zombie has its start time still). Undefined when there is none.
 */
export function identifyChild(pid: number): ProcessIdentity | undefined {
  const stat = readStat(pid)
  return stat === undefined ? undefined : { pid: stat.pid, startTicks: stat.startTicks }
}

/** Whether exactly this process still runs. */
export function isAlive(identity: ProcessIdentity): boolean {
  return identify(identity.pid)?.startTicks === identity.startTicks
}

/** Sends a signal to exactly this process; false when it is gone. */
export function signalProcess(identity: ProcessIdentity, signal: NodeJS.Signals): boolean {
  if (!isAlive(identity)) return false
  try {
    process.kill(identity.pid, signal)
    return true
  } catch {
    return false
  }
}
