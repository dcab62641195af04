import { MacfleetError } from '../../base/errors.ts'
import { StatusError } from './status-error.ts'

/** What the exit code of `macfleet` says. `exec`, `ssh` and `run -- CMD` pass on the command's own. */
export const exitCodes = {
  success: 0,
  failure: 1,
  usage: 2,
  timeout: 3,
  notFound: 4,
  /** As a shell reports a program that SIGINT ended: 128 + 2. */
  interrupted: 130,
} as const

/** The end of every `--help`. */
export const exitCodeHelp = `
Exit codes: 0 done, 1 failed, 2 wrong usage, 3 timed out, 4 not found, 130 interrupted.`

/** The exit code for what a command threw. */
export function exitCodeOf(thrown: unknown): number {
  if (thrown instanceof Error && thrown.name === 'AbortError') return exitCodes.interrupted
  if (thrown instanceof MacfleetError && thrown.code === 'usageWrong') return exitCodes.usage
  if (!(thrown instanceof MacfleetError) && !(thrown instanceof StatusError)) {
    return exitCodes.failure
  }
  if (thrown.reason === 'Timeout') return exitCodes.timeout
  return thrown.reason === 'NotFound' ? exitCodes.notFound : exitCodes.failure
}
