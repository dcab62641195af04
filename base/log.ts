import { pino } from 'pino'

export { messageOf } from './errors.ts'

/** Structured logging: fields first, then a sentence. Secrets never go in either. */
export interface Log {
  debug(fields: object, message: string): void
  info(fields: object, message: string): void
  warn(fields: object, message: string): void
  error(fields: object, message: string): void
  /** A log whose every line carries `fields` too. */
  child(fields: object): Log
}

/** The levels in rising order of weight. */
export type LogLevel = 'debug' | 'info' | 'warn' | 'error' | 'silent'

/** Where a log goes and from which weight on. */
export interface LogInit {
  level: LogLevel
  /** A file descriptor; 2 (standard error) by default, which systemd hands to the journal. */
  fileDescriptor?: number
  /** Fields of every line, for example the process's name. */
  fields?: object
}

/** JSON lines by pino, written synchronously so that the last words of a dying process are kept. */
export function createLog(init: LogInit): Log {
  const destination = pino.destination({ fd: init.fileDescriptor ?? 2, sync: true })
  return pino({ level: init.level, base: init.fields ?? null }, destination)
}

/** Says nothing; for tests whose subject is not the log. */
export const silentLog: Log = {
  debug: () => {},
  info: () => {},
  warn: () => {},
  error: () => {},
  child: () => silentLog,
}
