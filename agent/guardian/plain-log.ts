import { writeSync } from 'node:fs'
import type { Clock } from '../../base/clock.ts'
import type { Log } from '../../base/log.ts'

/** pino's numbers, so that one reader reads both logs. */
const levels = { debug: 20, info: 30, warn: 40, error: 50 }

/**
 * The log of base/log.ts without pino, whose memory the guardian does not need to hold: the same
 * JSON lines, on standard error. What can't be written (a full disk) is dropped.
 */
export function createPlainLog(fields: object, clock: Clock): Log {
  const say = (level: number) => (more: object, message: string) => {
    const line = { level, time: clock.wallMs(), ...fields, ...more, msg: message }
    try {
      writeSync(2, `${JSON.stringify(line)}\n`)
    } catch {
      // The guardian does not end for its log.
    }
  }
  return {
    debug: () => {},
    info: say(levels.info),
    warn: say(levels.warn),
    error: say(levels.error),
    child: more => createPlainLog({ ...fields, ...more }, clock),
  }
}
