import { failure } from '../../base/errors.ts'
import { parseDurationMs } from '../../resources/duration.ts'

/**
 * Milliseconds of an option such as `--timeout 90s`; a plain number means seconds.
 * @throws usageWrong
 */
export function durationOption(text: string, option: string, command: string): number {
  const durationMs = parseDurationMs(/^\d+$/.test(text) ? `${text}s` : text)
  if (durationMs !== undefined) return durationMs
  const detail = `${option} takes a duration such as 90s or 5m, not ${text}`
  throw failure('usageWrong', { detail, command })
}
