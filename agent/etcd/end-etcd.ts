import { type Clock, sleep } from '../../base/clock.ts'
import { failure } from '../../base/errors.ts'
import type { Guardian } from '../guardian/client.ts'

const lookMs = 20
const endMs = 10_000

/**
 * Ends a process of the guardian and frees its name, whether it was there or not.
 * @throws timeout when it does not end; guardianUnavailable
 */
export async function endProcess(
  name: string,
  guardian: Pick<Guardian, 'list' | 'signal' | 'forget'>,
  clock: Clock,
): Promise<void> {
  const untilMs = clock.monotonicMs() + endMs
  for (;;) {
    const process = (await guardian.list()).find(one => one.name === name)
    if (process === undefined) return
    if (process.ended !== undefined) return await guardian.forget(name)
    if (process.identity !== undefined) await guardian.signal(name, 'SIGKILL', process.identity)
    if (clock.monotonicMs() > untilMs) {
      throw failure('timeout', { what: `the end of ${name}`, timeoutMs: endMs })
    }
    await sleep(clock, lookMs)
  }
}
