import { expect, test } from 'vitest'
import { systemClock } from '../../base/clock.ts'
import { failure } from '../../base/errors.ts'
import { defaultLimits } from '../../base/limits.ts'
import { silentLog } from '../../base/log.ts'
import { createManualClock } from '../../base/manual-clock.ts'
import { createSeededRandom, systemRandom } from '../../base/random.ts'
import { temporaryFolder } from '../../test/support/temporary-folder.ts'
import { leaderKey } from '../fleet/keys.ts'
import { defaultTiming } from '../fleet/timing.ts'
import { openLevelStore } from '../store/level.ts'
import { createMemoryStore } from '../store/memory.ts'
import type { Store } from '../store/store.ts'
import { type Leadership, startLeadership, type Term } from './leadership.ts'

function bench(seed = 1) {
  const clock = createManualClock()
  const common = { clock, random: createSeededRandom(seed), log: silentLog }
  const store = createMemoryStore({ ...common, limits: defaultLimits })
  const terms: { host: string; term: Term }[] = []
  const campaign = (host: string, through: Store = store): Leadership =>
    startLeadership(
      {
        host,
        timing: defaultTiming,
        async lead(term) {
          terms.push({ host, term })
          await new Promise(resolve => term.signal.addEventListener('abort', resolve))
        },
      },
      { ...common, store: through },
    )
  const until = async (holds: () => boolean, mostMs = 10_000) => {
    for (let ms = 0; !holds(); ms += 10) {
      if (ms > mostMs) throw new Error('not so in time')
      await clock.advance(10)
    }
  }
  const leading = () => terms.filter(({ term }) => !term.signal.aborted).map(({ host }) => host)
  return { clock, store, terms, campaign, until, leading }
}

/** A store whose answers, or requests, can be cut off. */
function cuttable(store: Store): { store: Store; cut: { now: boolean } } {
  const cut = { now: false }
  const guard =
    <Arguments extends unknown[], Result>(call: (...given: Arguments) => Promise<Result>) =>
    async (...given: Arguments): Promise<Result> => {
      const values = { what: 'the store', detail: 'cut', advice: '' }
      if (cut.now) throw failure('unavailable', values)
      return call(...given)
    }
  const wrapped: Store = {
    ...store,
    get: guard(store.get),
    transaction: guard(store.transaction),
    renewLease: guard(store.renewLease),
    grantLease: guard(store.grantLease),
    revokeLease: guard(store.revokeLease),
    // A stream that is stuck says nothing at all.
    async *watch(prefix, options) {
      for await (const batch of store.watch(prefix, options)) {
        if (cut.now) await new Promise(resolve => options.signal.addEventListener('abort', resolve))
        yield batch
      }
    },
  }
  return { store: wrapped, cut }
}

test('of many that campaign one leads, and the next when it resigns', async () => {
  const { store, terms, campaign, until, leading } = bench()
  const hosts = ['a', 'b', 'c', 'd', 'e'].map(name => ({ name, leadership: campaign(name) }))
  await until(() => leading().length > 0)
  for (let left = hosts.length; left > 1; left--) {
    const [name] = leading()
    expect(leading()).toHaveLength(1)
    await until(() => hosts.every(({ leadership }) => leadership.leader()?.host === name))
    const { entry } = await store.get(leaderKey)
    expect(entry?.value).toMatchObject({ host: name, since: expect.any(String) })
    const last = terms.at(-1)
    expect(entry?.createRevision).toBe(last?.term.fence)
    const at = hosts.findIndex(host => host.name === name)
    const [gone] = hosts.splice(at, 1)
    await gone?.leadership.stop()
    expect(last?.term.signal.aborted).toBe(true)
    await until(() => leading().length === 1, 1_000)
  }
  await Promise.all(hosts.map(({ leadership }) => leadership.stop()))
  expect((await store.get(leaderKey)).entry).toBeUndefined()
})

test('a leader that is cut off stops by itself before its lease is over', async () => {
  const { clock, store, campaign, until, leading, terms } = bench()
  const { store: through, cut } = cuttable(store)
  const first = campaign('a', through)
  await until(() => leading().length === 1)
  const second = campaign('b')
  await clock.advance(5_000)
  expect(leading()).toEqual(['a'])
  cut.now = true
  const cutMs = clock.monotonicMs()
  await until(() => leading().length === 0, 3_000)
  expect(clock.monotonicMs() - cutMs).toBeLessThanOrEqual(defaultTiming.leaderLeaseTtlMs)
  await until(() => leading()[0] === 'b', 3_000)
  // What the old one may still send is refused by its own compare.
  const old = terms[0]?.term.compare
  const { succeeded } = await store.transaction({
    compare: old === undefined ? [] : [old],
    operations: [{ put: 'x', value: 1 }],
  })
  expect(succeeded).toBe(false)
  cut.now = false
  await clock.advance(5_000)
  expect(leading()).toEqual(['b'])
  await Promise.all([first.stop(), second.stop()])
})

test('a term ends when the key goes, is another one, or its lease is gone', async () => {
  const { clock, store, campaign, until, leading, terms } = bench()
  const leadership = campaign('a')
  await until(() => leading().length === 1)
  await store.transaction({ compare: [], operations: [{ delete: leaderKey }] })
  await until(() => terms.length === 2)
  expect(terms[0]?.term.signal.aborted).toBe(true)
  expect(terms[1]?.term.fence).toBeGreaterThan(terms[0]?.term.fence ?? 0)
  const { entry } = await store.get(leaderKey)
  await store.revokeLease(entry?.lease ?? '')
  await until(() => terms.length === 3)
  await clock.advance(0)
  expect(leading()).toEqual(['a'])
  await leadership.stop()
})

test('a daemon that was killed and started anew does not wait for its own old lease', async () => {
  const { clock, store, campaign, until, leading } = bench()
  const lease = await store.grantLease(60_000)
  const value = { host: 'a', since: 'x' }
  await store.transaction({ compare: [], operations: [{ put: leaderKey, value, lease }] })
  const other = campaign('b')
  await clock.advance(1_000)
  expect(leading()).toEqual([])
  const leadership = campaign('a')
  await until(() => leading().length === 1, 1_000)
  await Promise.all([leadership.stop(), other.stop()])
})

test('a leader whose work fails gives up, and leads again', async () => {
  const clock = createManualClock()
  const common = { clock, random: systemRandom, log: silentLog }
  const store = createMemoryStore({ ...common, limits: defaultLimits })
  let terms = 0
  const lead = async (term: Term): Promise<void> => {
    terms++
    if (terms === 1) throw new Error('a mistake of ours')
    await new Promise(resolve => term.signal.addEventListener('abort', resolve))
  }
  const leadership = startLeadership(
    { host: 'a', timing: defaultTiming, lead },
    { ...common, store },
  )
  for (let ms = 0; terms < 2 && ms < 5_000; ms += 10) await clock.advance(10)
  expect(terms).toBe(2)
  expect(leadership.leads()).toBe(true)
  await leadership.stop()
  expect(leadership.leads()).toBe(false)
  await store.close()
  expect(clock.pendingTimers()).toBe(0)
})

test('leads alone on the level store', async () => {
  const common = { clock: systemClock, random: systemRandom, log: silentLog }
  const limits = defaultLimits
  const store = await openLevelStore({ folder: temporaryFolder() }, { ...common, limits })
  const leads = Promise.withResolvers<Term>()
  const leadership = startLeadership(
    {
      host: 'a',
      timing: defaultTiming,
      async lead(term) {
        leads.resolve(term)
        await new Promise(resolve => term.signal.addEventListener('abort', resolve))
      },
    },
    { ...common, store },
  )
  const { fence } = await leads.promise
  expect((await store.get(leaderKey)).entry?.createRevision).toBe(fence)
  await leadership.stop()
  await store.close()
})
