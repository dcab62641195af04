import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { systemClock } from '../../base/clock.ts'
import { isFailure } from '../../base/errors.ts'
import { defaultLimits } from '../../base/limits.ts'
import { silentLog } from '../../base/log.ts'
import { systemRandom } from '../../base/random.ts'
import { createEtcdAdmin, type EtcdAdmin } from '../../cluster/etcd/admin.ts'
import type { EtcdConnection } from '../../cluster/etcd/connection.ts'
import { collect } from '../../cluster/store/compliance-tools.ts'
import { openEtcdStore } from '../../cluster/store/etcd.ts'
import { createMirroredStore } from '../../cluster/store/mirrored.ts'
import type { Store, WatchBatch } from '../../cluster/store/store.ts'
import { startTestEtcdCluster, type TestEtcd, type TestEtcdMember } from '../support/etcd.ts'

const components = {
  clock: systemClock,
  random: systemRandom,
  log: silentLog,
  limits: defaultLimits,
}
/** As after a single host became a fleet: what was told before lies below. */
const revisionBase = 1_000

let etcd: TestEtcd
let connection: EtcdConnection
let admin: EtcdAdmin
let store: Store
const ending: (() => void)[] = []

beforeAll(async () => {
  etcd = await startTestEtcdCluster(3)
  connection = await etcd.connect()
  admin = createEtcdAdmin(connection)
  store = openEtcdStore({ connection, revisionBase }, components)
})
afterEach(() => {
  for (const end of ending.splice(0)) end()
})
afterAll(async () => {
  await store.close()
  await etcd.stop()
})

async function memberThatLeads(): Promise<TestEtcdMember> {
  for (const member of etcd.members) {
    const status = await admin.status(member.clientUrl).catch(() => undefined)
    if (status?.leaderId === status?.memberId && status !== undefined) return member
  }
  throw new Error('nobody leads')
}

/** Makes the connection use this member. */
async function use({ clientUrl }: TestEtcdMember): Promise<void> {
  connection.setEndpoints([clientUrl])
  await until('it is used', () =>
    store.revision().then(
      () => true,
      () => false,
    ),
  )
  connection.setEndpoints(etcd.endpoints)
}

/** Watches everything from now on, until the test ends. */
async function watchAll(): Promise<{ seen: WatchBatch[]; from: number }> {
  const controller = new AbortController()
  ending.push(() => controller.abort())
  const from = await store.revision()
  const seen: WatchBatch[] = []
  const watch = store.watch('', { afterRevision: from, signal: controller.signal })
  const reading = async (): Promise<void> => {
    for await (const batch of watch) if (batch.events.length > 0) seen.push(batch)
  }
  reading().catch(error => seen.push({ events: [], revision: -1, ...{ error } }))
  return { seen, from }
}

/** Writes on and on; tells the longest time without a write that was acknowledged. */
function writeOn(key: string) {
  let stopped = false
  let longestGapMs = 0
  let written = 0
  ending.push(() => {
    stopped = true
  })
  const running = (async () => {
    let lastMs = performance.now()
    while (!stopped) {
      const value = `${written}`
      const writing = store.transaction({ compare: [], operations: [{ put: key, value }] })
      try {
        await writing
        written++
        const nowMs = performance.now()
        longestGapMs = Math.max(longestGapMs, nowMs - lastMs)
        lastMs = nowMs
      } catch (error) {
        if (!isFailure(error, 'unavailable')) throw error
      }
    }
  })()
  return {
    written: () => written,
    async stop() {
      stopped = true
      await running
      return { written, longestGapMs }
    },
  }
}

/** Renews a lease of 3 s that holds a key; tells what went wrong with renewals. */
async function keepLease(key: string) {
  const lease = await store.grantLease(3_000)
  await store.transaction({ compare: [], operations: [{ put: key, value: 1, lease }] })
  const failed: unknown[] = []
  let stopped = false
  ending.push(() => {
    stopped = true
  })
  const running = (async () => {
    while (!stopped) {
      await store.renewLease(lease).catch(error => failed.push(error))
      await new Promise(resolve => setTimeout(resolve, 300))
    }
  })()
  return {
    async stop() {
      stopped = true
      await running
      return failed
    },
  }
}

async function until(what: string, condition: () => boolean | Promise<boolean>): Promise<void> {
  const untilMs = performance.now() + 15_000
  while (!(await condition())) {
    if (performance.now() > untilMs) throw new Error(`not in time: ${what}`)
    await new Promise(resolve => setTimeout(resolve, 20))
  }
}

/** Compares what a watch saw with the history that etcd has. */
async function expectWhole({ seen, from }: { seen: WatchBatch[]; from: number }): Promise<void> {
  const last = await store.revision()
  await until('the watch is where the store is', () => (seen.at(-1)?.revision ?? from) >= last)
  const fresh = openEtcdStore({ connection, revisionBase }, components)
  try {
    expect(seen).toEqual(await collect(fresh, '', from, last))
    const revisions = Array.from({ length: last - from }, (_, index) => from + 1 + index)
    expect(seen.map(({ revision }) => revision)).toEqual(revisions)
  } finally {
    await fresh.close()
  }
}

describe('the store on three members of etcd', () => {
  it("goes on when etcd's leader is killed, and a watch misses and repeats nothing", async () => {
    const leader = await memberThatLeads()
    await use(leader)
    const watched = await watchAll()
    const writer = writeOn('kill')
    const leased = await keepLease('leased')
    await until('it writes', () => writer.written() > 50)
    await leader.kill()
    const before = writer.written()
    await until('it writes again', () => writer.written() > before + 50)
    const { longestGapMs } = await writer.stop()
    const notRenewed = await leased.stop()
    // First of all, so that what fails here fails here only.
    await leader.start()
    expect(longestGapMs).toBeLessThan(4_000)
    expect(notRenewed).toEqual([])
    expect((await store.get('leased')).entry?.value).toBe(1)
    await expectWhole(watched)
    expect(connection.availability()).toMatchObject({ available: true })
  })

  it('leaves an endpoint that is frozen, and reads and writes elsewhere', async () => {
    const leader = await memberThatLeads()
    const frozen = etcd.members.find(member => member !== leader) ?? leader
    await use(frozen)
    const watched = await watchAll()
    const writer = writeOn('freeze')
    await until('it writes', () => writer.written() > 50)
    frozen.freeze()
    ending.push(() => frozen.thaw())
    const beganMs = performance.now()
    await store.get('freeze')
    const readMs = performance.now() - beganMs
    const before = writer.written()
    await until('it writes again', () => writer.written() > before + 50)
    const { longestGapMs } = await writer.stop()
    // It was the endpoint in use, and its silence was noticed.
    expect(readMs).toBeGreaterThan(200)
    expect(readMs).toBeLessThan(3_000)
    expect(longestGapMs).toBeLessThan(4_000)
    await expectWhole(watched)
  })

  it('says within its bounds that etcd is away, since when, and when it is back', async () => {
    const told: boolean[] = []
    ending.push(connection.onAvailability(({ available }) => told.push(available)))
    const inner = openEtcdStore({ connection, revisionBase }, components)
    const mirrored = createMirroredStore(inner, components)
    ending.push(() => mirrored.close())
    const { entries, revision } = await mirrored.list('kill')
    await until('there is a mirror', () => (mirrored.mirrorRevision() ?? 0) >= revision)
    const [first, second] = etcd.members
    await Promise.all([first?.kill(), second?.kill()])
    const beganMs = performance.now()
    const write = store.transaction({ compare: [], operations: [{ put: 'away', value: 1 }] })
    await Promise.all([
      expect(write).rejects.toMatchObject({ code: 'unavailable' }),
      expect(store.get('away')).rejects.toMatchObject({ code: 'unavailable' }),
      expect(mirrored.list('kill')).resolves.toMatchObject({ entries, more: false }),
    ])
    expect(mirrored.staleSince()?.revision).toBe(mirrored.mirrorRevision())
    expect(performance.now() - beganMs).toBeLessThan(7_500)
    expect(connection.availability()).toMatchObject({ available: false })
    expect(connection.availability().lastError).toBeTruthy()
    await Promise.all([first?.start(), second?.start()])
    await until('it reads again', () =>
      store.get('away').then(
        () => true,
        () => false,
      ),
    )
    expect([told[0], told.at(-1)]).toEqual([false, true])
    await mirrored.revision()
    expect(mirrored.staleSince()).toBeUndefined()
  })

  it('ends watches that slept through a compaction, and watches anew', async () => {
    const watched = await watchAll()
    const other = await etcd.connect()
    const writer = openEtcdStore({ connection: other, revisionBase }, components)
    const put = { compare: [], operations: [{ put: 'compacted', value: 1 }] }
    await writer.transaction(put)
    await until('the watch works', () => watched.seen.length > 0)
    connection.setEndpoints([])
    for (let round = 0; round < 10; round++) await writer.transaction(put)
    const { revision } = await writer.transaction(put)
    await createEtcdAdmin(other).compact(revision - revisionBase)
    await createEtcdAdmin(other).compact(revision - revisionBase)
    connection.setEndpoints(etcd.endpoints)
    await until('the watch ends', () => watched.seen.at(-1)?.revision === -1)
    expect(watched.seen.at(-1)).toMatchObject({ error: { code: 'revisionCompacted' } })
    const old = collect(store, '', revision - 5, revision)
    await expect(old).rejects.toMatchObject({ code: 'revisionCompacted' })
    const again = await watchAll()
    await writer.transaction(put)
    await expectWhole(again)
    await expect(collect(store, '', 500, revision)).rejects.toMatchObject({
      code: 'revisionCompacted',
    })
    await writer.close()
  })

  it('goes on with other certificates and endpoints while it is used', async () => {
    const watched = await watchAll()
    const writer = writeOn('reload')
    await until('it writes', () => writer.written() > 20)
    for (const endpoints of [etcd.endpoints.slice(1), etcd.endpoints.slice(0, 1), etcd.endpoints]) {
      const before = writer.written()
      connection.setEndpoints(endpoints)
      connection.reloadTls()
      await until('it goes on writing', () => writer.written() > before + 20)
    }
    const { longestGapMs } = await writer.stop()
    expect(longestGapMs).toBeLessThan(2_000)
    await expectWhole(watched)
  })

  it('shows a revision whole that etcd sends in pieces', async () => {
    const watched = await watchAll()
    for (const letter of ['a', 'b']) {
      const operations = Array.from({ length: 100 }, (_, index) => ({
        put: `large/${index}`,
        value: letter.repeat(14_000),
      }))
      await store.transaction({ compare: [], operations })
    }
    await expectWhole(watched)
    expect(watched.seen.map(({ events }) => events.length)).toEqual([100, 100])
  })
})
