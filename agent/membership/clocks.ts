import { failure } from '../../base/errors.ts'
import { backdatedMs } from '../../cluster/membership/authority.ts'
import { addressText, type PeerAddress } from '../../cluster/membership/token-text.ts'

/** Less than certificates are backdated, so that what one host signs another takes at once. */
const mostSkewMs = backdatedMs - 60_000

/**
 * Fails when the two clocks differ so much that certificates would not work.
 * @param hereMs the wall clock of the host on which the message is read
 * @throws clockSkew, naming both
 */
export function checkClocks(hereMs: number, thereMs: number, address: PeerAddress): void {
  if (Math.abs(hereMs - thereMs) <= mostSkewMs) return
  throw failure('clockSkew', {
    here: new Date(hereMs).toISOString(),
    there: new Date(thereMs).toISOString(),
    address: addressText(address),
  })
}
