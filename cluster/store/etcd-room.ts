import { failure } from '../../base/errors.ts'
import type { Limits } from '../../base/limits.ts'
import type { EtcdConnection } from '../etcd/connection.ts'
import type { EtcdCodec } from './etcd-codec.ts'
import type { EtcdFeed } from './etcd-feed.ts'
import { reading } from './etcd-range.ts'
import type { PreparedTransaction } from './transaction.ts'

/** What room is counted with. */
export interface EtcdRoomComponents {
  connection: EtcdConnection
  codec: EtcdCodec
  feed: Pick<EtcdFeed, 'bytes' | 'reach' | 'synchronize'>
}

/** Room that a write of ours has taken and that was not seen to be used yet. */
export interface TakenRoom {
  /** It is used, or not, from this revision on. */
  until(revision: number): void
  giveBack(): void
}

/**
 * Holds the store to `limits.storeBytes`. etcd's own quota counts history too and stops everything;
 * this bound comes first. Writers on several hosts may pass it together by what they write at once.
 */
export interface EtcdRoom {
  /** @throws storeFull; what makes the store smaller is always let through */
  take(transaction: PreparedTransaction): Promise<TakenRoom>
}

/** Nothing is taken yet. */
export function createEtcdRoom(components: EtcdRoomComponents, limits: Limits): EtcdRoom {
  const { connection, codec, feed } = components
  let taken = 0

  /** What the transaction adds, by what is there now. */
  const growthOf = async ({ operations }: PreparedTransaction): Promise<number> => {
    let growth = 0
    const success = operations.map(operation => {
      if (operation.kind === 'deletePrefix') return { range: codec.range(operation.prefix) }
      if (operation.kind === 'put') {
        growth += operation.key.length + Buffer.byteLength(JSON.stringify(operation.value))
      }
      return { range: { key: codec.key(operation.key) } }
    })
    const request = { compare: [], success, failure: [] }
    const { responses } = await connection.call('KV.Txn', request, reading)
    for (const { range } of responses) {
      for (const found of range?.entries ?? []) growth -= codec.bytes(found)
    }
    return growth
  }

  return {
    async take(transaction) {
      const { bytes } = transaction
      if (feed.bytes() + taken + bytes > limits.storeBytes) {
        await feed.synchronize()
        const growth = await growthOf(transaction)
        if (growth > 0 && feed.bytes() + growth > limits.storeBytes) {
          throw failure('storeFull', { limitBytes: limits.storeBytes })
        }
      }
      taken += bytes
      let given = false
      const giveBack = (): void => {
        if (!given) taken -= bytes
        given = true
      }
      return {
        giveBack,
        until: revision => {
          feed.reach(revision).then(giveBack, giveBack)
        },
      }
    },
  }
}
