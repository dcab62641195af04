import { sleep, withTimeout } from '../../base/clock.ts'
import { assert, failure, isFailure, messageOf } from '../../base/errors.ts'
import type { EtcdConnection } from '../etcd/connection.ts'
import { etcdUnavailable, isRefusal, RpcFailure } from '../etcd/rpc-failure.ts'
import type { StoreComponents } from './store-core.ts'

const dayMs = 24 * 60 * 60 * 1000
const grantMs = 5_000
/** One endpoint may take so long for a renewal; short, because the lease runs on meanwhile. */
const renewalMs = 700
/** A renewal is tried for so long, over all endpoints: longer than an election lasts. */
const renewalSpanMs = 2_800
/** Between two tries: while nobody leads, endpoints refuse at once. */
const renewalPauseMs = 100

/** Leases of etcd. Their ids are decimal numbers of 64 bits, as etcd's HTTP gateway has them. */
export interface EtcdLeases {
  grant(ttlMs: number): Promise<string>
  renew(lease: string): Promise<void>
  revoke(lease: string): Promise<void>
}

/** Fails with leaseNotFound when the id is none that etcd gives. */
export function assertLease(lease: string): void {
  if (!/^[1-9]\d{0,18}$/.test(lease)) throw failure('leaseNotFound', { lease })
}

/** Counts only the leases granted here; those that others hold are theirs to bound. */
export function createEtcdLeases(
  connection: EtcdConnection,
  { clock, limits }: Pick<StoreComponents, 'clock' | 'limits'>,
): EtcdLeases {
  const held = new Set<string>()

  /** Forgets those that ended by themselves, when it matters. */
  const assertRoom = async (): Promise<void> => {
    if (held.size < limits.leases) return
    const options = { repeatable: true, timeoutMs: grantMs }
    const { leases } = await connection.call('Lease.LeaseLeases', {}, options)
    const alive = new Set(leases.map(({ id }) => id))
    for (const lease of held) if (!alive.has(lease)) held.delete(lease)
    if (held.size < limits.leases) return
    throw failure('tooMany', { limit: limits.leases, what: 'leases' })
  }
  const renewOnce = async (lease: string): Promise<boolean> => {
    const exchange = await connection.exchange('Lease.LeaseKeepAlive')
    const tooLate = (): Error => etcdUnavailable(`no renewal within ${renewalMs} ms`)
    try {
      exchange.write({ id: lease })
      const answer = await withTimeout(clock, renewalMs, exchange.messages().next(), tooLate)
      if (answer.done === true) throw new RpcFailure(14, 'etcd ended the renewal')
      exchange.worked()
      return answer.value.ttl !== '0'
    } catch (error) {
      exchange.failed(messageOf(error))
      throw error
    } finally {
      exchange.cancel()
    }
  }

  return {
    async grant(ttlMs) {
      assert(Number.isInteger(ttlMs) && ttlMs >= 1 && ttlMs <= dayMs, 'a lease has 1 ms to a day')
      await assertRoom()
      // A lease that was granted and not heard of ends by itself.
      const options = { repeatable: true, timeoutMs: grantMs }
      const request = { ttl: Math.ceil(ttlMs / 1000) }
      const { id } = await connection.call('Lease.LeaseGrant', request, options)
      held.add(id)
      return id
    },
    async renew(lease) {
      assertLease(lease)
      const untilMs = clock.monotonicMs() + renewalSpanMs
      for (;;) {
        try {
          if (await renewOnce(lease)) return
          held.delete(lease)
          throw failure('leaseNotFound', { lease })
        } catch (error) {
          if (isFailure(error, 'leaseNotFound') || clock.monotonicMs() >= untilMs) throw error
        }
        await sleep(clock, renewalPauseMs)
      }
    },
    async revoke(lease) {
      assertLease(lease)
      const options = { repeatable: false, timeoutMs: grantMs }
      try {
        await connection.call('Lease.LeaseRevoke', { id: lease }, options)
        held.delete(lease)
      } catch (error) {
        if (!isRefusal(error, 'lease not found')) throw error
        held.delete(lease)
        throw failure('leaseNotFound', { lease })
      }
    },
  }
}
