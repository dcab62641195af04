import { openSync, readSync } from 'node:fs'

/**
 * Milliseconds since the machine booted, time that it slept included. Timers and `monotonicMs`
 * stand still while the machine sleeps; a deadline that others count on must not.
 */
export interface BootClock {
  /** In steps of 10 ms. */
  nowMs(): number
}

/**
 * The kernel's, from /proc/uptime (proc(5)). The file is opened once, so that a process that has no
 * descriptors left still knows the time.
 */
export function openBootClock(): BootClock {
  const file = openSync('/proc/uptime', 'r')
  const bytes = Buffer.alloc(64)
  return {
    nowMs() {
      const length = readSync(file, bytes, 0, bytes.length, 0)
      return Math.round(Number.parseFloat(bytes.toString('latin1', 0, length)) * 1000)
    },
  }
}
