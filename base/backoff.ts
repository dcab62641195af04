/** How long to wait between tries. */
export interface BackoffInit {
  /** Wait before the first retry, in milliseconds. */
  firstMs: number
  /** No wait is longer. */
  mostMs: number
}

/**
 * The wait before retry number `failures` (1 is the first): firstMs * 2^(failures - 1), at most
 * mostMs. Without jitter: here many retries never share one server; where they do, add it there.
 */
export function backoffMs(init: BackoffInit, failures: number): number {
  return Math.min(init.mostMs, init.firstMs * 2 ** Math.min(30, Math.max(0, failures - 1)))
}
