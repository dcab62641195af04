import { createKeyOrder } from '../../cluster/store/etcd-order.ts'
import type { Store, Transaction, WatchBatch, WatchOptions } from '../../cluster/store/store.ts'
import { storeUnavailable } from '../../cluster/store/store-core.ts'
import type { Actor } from './actor.ts'
import type { Etcd } from './etcd.ts'
import type { Link } from './link.ts'

/** Waits of the client of etcd, as the real one has them (cluster/store/etcd*.ts). */
const readMs = 5_000
const writeMs = 5_000
const renewalMs = 700
/** A watch whose way is cut so long is noticed to be broken. */
const watchBrokenMs = 3_000

/** How a call is made. */
interface Call<Result> {
  what: string
  timeoutMs: number
  work(): Promise<Result>
}

/**
 * The store as one process has it: requests and answers go over its machine's link, may be lost on
 * either way, and an answer that does not come leaves open whether the write was done.
 * @param host the machine's name
 */
export function createStoreClient(host: string, actor: Actor, link: Link, etcd: Etcd): Store {
  const order = createKeyOrder()
  const lost = (what: string) => storeUnavailable(`no answer to ${what}`, '')

  const call = <Result>({ what, timeoutMs, work }: Call<Result>): Promise<Result> =>
    new Promise((resolve, reject) => {
      const timer = actor.clock.setTimer(timeoutMs, () => reject(lost(what)))
      const answer = (settle: () => void): void =>
        link.send('back', () =>
          actor.deliver(() => {
            timer.cancel()
            settle()
          }),
        )
      const perform = (): void =>
        etcd.whenLed(() => {
          work().then(
            result => answer(() => resolve(result)),
            error => answer(() => reject(error)),
          )
        })
      link.send('out', perform)
    })

  async function* watch(prefix: string, options: WatchOptions): AsyncGenerator<WatchBatch> {
    const { afterRevision, signal } = options
    const { broken } = link
    await call({ what: 'watch', timeoutMs: readMs, work: () => etcd.store.revision() })
    const ends = AbortSignal.any([signal, broken, actor.over.signal])
    const batches = etcd.store.watch(prefix, { afterRevision, signal: ends })
    let askedMs = actor.world.nowMs
    try {
      for await (const batch of batches) {
        // What comes in one go arrives in one go.
        if (actor.world.nowMs > askedMs) await actor.pass(link.delayMs())
        else if (actor.state !== 'runs') await actor.pass(0)
        for (let waitedMs = 0; link.isCut('back'); waitedMs += 100) {
          if (waitedMs >= watchBrokenMs || signal.aborted) throw lost('watch')
          await actor.pass(100)
        }
        if (signal.aborted) return
        askedMs = actor.world.nowMs
        yield batch
      }
    } catch (error) {
      await actor.pass(0)
      throw error
    }
    // Of a process that has ended this is the last.
    await actor.pass(0)
    if (broken.aborted && !signal.aborted) throw lost('watch')
  }

  const touched = ({ compare, operations }: Transaction): string[] | undefined => {
    const keys = compare.map(({ key }) => key)
    for (const operation of operations) {
      if ('deletePrefix' in operation) return undefined
      keys.push('put' in operation ? operation.put : operation.delete)
    }
    return keys
  }

  return {
    get: key => call({ what: 'get', timeoutMs: readMs, work: () => etcd.store.get(key) }),
    list: (prefix, options) =>
      call({ what: 'list', timeoutMs: readMs, work: () => etcd.store.list(prefix, options) }),
    revision: () =>
      call({ what: 'revision', timeoutMs: readMs, work: () => etcd.store.revision() }),
    transaction: transaction =>
      order.run(touched(transaction), () =>
        call({
          what: 'transaction',
          timeoutMs: writeMs,
          work: () => etcd.transaction(host, transaction),
        }),
      ),
    grantLease: ttlMs =>
      call({ what: 'grant', timeoutMs: writeMs, work: () => etcd.grantLease(ttlMs) }),
    renewLease: lease =>
      call({ what: 'renewal', timeoutMs: renewalMs, work: () => etcd.store.renewLease(lease) }),
    revokeLease: lease =>
      call({ what: 'revoke', timeoutMs: writeMs, work: () => etcd.revokeLease(lease) }),
    watch,
    close: async () => {},
  }
}
