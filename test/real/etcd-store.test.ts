import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { systemClock } from '../../base/clock.ts'
import { defaultLimits } from '../../base/limits.ts'
import { silentLog } from '../../base/log.ts'
import { systemRandom } from '../../base/random.ts'
import type { EtcdConnection } from '../../cluster/etcd/connection.ts'
import { storeCompliance } from '../../cluster/store/compliance.ts'
import { collect, put } from '../../cluster/store/compliance-tools.ts'
import { openEtcdStore } from '../../cluster/store/etcd.ts'
import { readRevision } from '../../cluster/store/etcd-range.ts'
import type { Store } from '../../cluster/store/store.ts'
import type { StoreComponents } from '../../cluster/store/store-core.ts'
import { startTestEtcd, type TestEtcd } from '../support/etcd.ts'

let etcd: TestEtcd
let connection: EtcdConnection

beforeAll(async () => {
  etcd = await startTestEtcd()
  connection = await etcd.connect()
})
afterAll(() => etcd.stop())

let opened = 0

// One etcd serves all tests: each store has keys of its own, and counts its revisions from one on.
storeCompliance('etcd', () => {
  let revisionBase = 0
  const open = async (components: StoreComponents): Promise<Store> => {
    const init = { connection, revisionBase, prefix: `${opened}/` }
    const store = openEtcdStore(init, components)
    // Some tests have limits that are too small for what happens while it begins.
    await store.followed()
    return store
  }
  return {
    async open(components) {
      opened++
      revisionBase = 1 - (await readRevision(connection))
      return open(components)
    },
    reopen: open,
    remove: async () => {},
  }
})

describe('what the store asks of etcd', () => {
  it('is one watch, whatever was watched and cancelled here', async () => {
    const components = {
      clock: systemClock,
      random: systemRandom,
      log: silentLog,
      limits: defaultLimits,
    }
    const store = openEtcdStore({ connection, revisionBase: 0, prefix: 'watches/' }, components)
    const watchers = () => etcd.members[0]?.metric('etcd_debugging_mvcc_watcher_total')
    // More than is remembered, so that the past must come from etcd.
    const from = await store.revision()
    for (let value = 0; value < 300; value++) await put(store, 'a', value)
    const last = await store.revision()
    const pasts = Array.from({ length: 10 }, () => collect(store, '', from, last))
    for (const past of await Promise.all(pasts)) expect(past).toHaveLength(300)
    await expect.poll(watchers, { timeout: 5_000 }).toBe(1)
    await store.close()
    await expect.poll(watchers, { timeout: 5_000 }).toBe(0)
  })

  it('may be damaged: reads and watches of it fail, the rest goes on', async () => {
    const bad = { put: { key: Buffer.from('bad/a'), value: Buffer.from('{') } }
    const request = { compare: [], success: [bad], failure: [] }
    const components = {
      clock: systemClock,
      random: systemRandom,
      log: silentLog,
      limits: defaultLimits,
    }
    const store = openEtcdStore({ connection, revisionBase: 0, prefix: 'bad/' }, components)
    const watching = collect(store, '', await store.revision(), Number.MAX_SAFE_INTEGER)
    const watched = expect(watching).rejects.toMatchObject({ code: 'etcdValueDamaged' })
    await expect.poll(() => etcd.members[0]?.metric('etcd_debugging_mvcc_watcher_total')).toBe(1)
    await connection.call('KV.Txn', request, { repeatable: true, timeoutMs: 5_000 })
    await expect(store.get('a')).rejects.toMatchObject({ code: 'etcdValueDamaged' })
    await watched
    const revision = await put(store, 'b', 1)
    await put(store, 'b', 2)
    expect(await collect(store, '', revision, revision + 1)).toHaveLength(1)
    await store.close()
  })
})
