import type { Readable, Writable } from 'node:stream'
import type { Clock } from '../../base/clock.ts'
import type { Random } from '../../base/random.ts'

/** A stream that may be a terminal (tty.ReadStream has these members, a pipe has none of them). */
export type InputStream = Readable & { isTTY?: boolean; setRawMode?(raw: boolean): unknown }

/** A stream that may be a terminal; `columns` and `rows` are its size then. */
export type OutputStream = Writable & { isTTY?: boolean; columns?: number; rows?: number }

/** What one run of the command line has around it. Commands take nothing from the process themselves. */
export interface Invocation {
  environment: Readonly<Record<string, string | undefined>>
  stdin: InputStream
  stdout: OutputStream
  stderr: OutputStream
  clock: Clock
  random: Random
  /** Aborted by Ctrl-C and SIGTERM. */
  signal: AbortSignal
  /** Sets the exit code of a run that throws nothing; 0 when never called. */
  setExitCode(code: number): void
}

/** Options that every command takes, before or after its name. */
export interface GlobalOptions {
  socket?: string
  context?: string
  namespace?: string
}
