import { type BackoffInit, backoffMs } from '../base/backoff.ts'
import { type Clock, sleep } from '../base/clock.ts'

/** A connection that is to be there for as long as somebody wants it. */
export interface ReconnectInit {
  /** Connects, and settles when that connection has ended: with the reason, or thrown. */
  serve(): Promise<unknown>
  /** Told why each connection ended or could not be made. */
  onLost(reason: unknown): void
  /** Between tries; 20 ms up to 1 s by default: a QEMU that starts is there in 50 ms. */
  backoff?: BackoffInit
  /** Ends the trying. */
  signal: AbortSignal
}

/** A connection that held this long was a good one: the next try does not pay for failures before it. */
const settledMs = 5000

/** Connects again and again until the signal is aborted; never rejects. */
export async function keepConnected(init: ReconnectInit, clock: Clock): Promise<void> {
  const backoff = init.backoff ?? { firstMs: 20, mostMs: 1000 }
  let failures = 0
  while (!init.signal.aborted) {
    const sinceMs = clock.monotonicMs()
    init.onLost(await init.serve().catch(error => error))
    failures = clock.monotonicMs() - sinceMs >= settledMs ? 1 : failures + 1
    await sleep(clock, backoffMs(backoff, failures), init.signal).catch(() => {})
  }
}
