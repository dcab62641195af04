import { readFileSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'

/**
 * A process's proportional set size in megabytes (10^6 bytes): memory that it shares with others is
 * divided among them (proc(5), smaps_rollup).
 */
export function readPssMegabytes(pid: number): number {
  const text = readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8')
  const kibibytes = /^Pss:\s+(\d+) kB$/m.exec(text)?.[1]
  return (Number(kibibytes) * 1024) / 1e6
}

/** Seconds of processor time that a process has used: user and system (proc(5), stat). */
export function readProcessorSeconds(pid: number): number {
  const text = readFileSync(`/proc/${pid}/stat`, 'utf8')
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
  const ticksPerSecond = 100
  return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond
}

/** What a process took over a while. */
export interface Usage {
  /** One reading each few seconds, in megabytes. */
  pssMegabytes: number[]
  /** Of one core, over the whole time. */
  processorPercent: number
}

/** Watches a process for so long. Reading costs the kernel some time, none of it the process's. */
export async function observe(pid: number, forMs: number, signal: AbortSignal): Promise<Usage> {
  const readings = 12
  const pssMegabytes: number[] = []
  const beganMs = performance.now()
  const before = readProcessorSeconds(pid)
  for (let reading = 0; reading < readings; reading++) {
    await delay(forMs / readings, undefined, { signal })
    pssMegabytes.push(readPssMegabytes(pid))
  }
  const seconds = (performance.now() - beganMs) / 1000
  const used = readProcessorSeconds(pid) - before
  return { pssMegabytes, processorPercent: (used / seconds) * 100 }
}
