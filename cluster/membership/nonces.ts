import { createHmac, timingSafeEqual } from 'node:crypto'
import type { Clock } from '../../base/clock.ts'
import type { Random } from '../../base/random.ts'

/** Numbers that are signed with a request, so that one that was heard is worth nothing later. */
export interface Nonces {
  issue(): string
  /** Whether it was issued here, less than a minute ago. */
  isFresh(nonce: string): boolean
}

const freshMs = 60_000

/** Nonces that need no memory: the moment they were issued at, sealed by a key of this process. */
export function createNonces({ clock, random }: { clock: Clock; random: Random }): Nonces {
  const key = random.bytes(32)
  const sealOf = (moment: Buffer) => createHmac('sha256', key).update(moment).digest()
  return {
    issue() {
      const moment = Buffer.alloc(16)
      moment.writeDoubleBE(clock.monotonicMs())
      random.bytes(8).copy(moment, 8)
      return Buffer.concat([moment, sealOf(moment)]).toString('base64url')
    },
    isFresh(nonce) {
      const bytes = Buffer.from(nonce, 'base64url')
      if (bytes.length !== 48) return false
      const moment = bytes.subarray(0, 16)
      if (!timingSafeEqual(bytes.subarray(16), sealOf(moment))) return false
      const ageMs = clock.monotonicMs() - moment.readDoubleBE()
      return ageMs >= 0 && ageMs < freshMs
    },
  }
}
