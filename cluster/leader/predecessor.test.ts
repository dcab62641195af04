import { expect, test } from 'vitest'
import { leaderBench } from '../../test/support/leader-bench.ts'
import { type FactsView, type HostFacts, noFacts } from '../fleet/facts.ts'
import { leaderKey } from '../fleet/keys.ts'

/** Somebody else leads, and dies without a word; its host's lease lives on. */
async function afterLeader(name: string) {
  const bench = await leaderBench()
  const lease = await bench.store.grantLease(2_000)
  const value = { host: name, since: '2026-01-01T00:00:00Z' }
  const operations = [{ put: leaderKey, value, lease }]
  await bench.store.transaction({ compare: [], operations })
  let tell = (_: string): void => {}
  let heardMs = bench.clock.monotonicMs()
  const facts: FactsView = {
    ...noFacts,
    of: host => (host === name ? ({ host, receivedAtMs: heardMs } as HostFacts) : undefined),
    onChange(listener) {
      tell = listener
      return () => {}
    },
  }
  const hear = (): void => {
    heardMs = bench.clock.monotonicMs()
    tell(name)
  }
  return { ...bench, facts, hear }
}

test('the host of the leader that died comes last, until it is heard', async () => {
  const bench = await afterLeader('h1')
  await bench.host({ name: 'h1' })
  const leadership = bench.leader('h9', bench.store, bench.facts)
  await bench.until(() => leadership.leads())
  await bench.machine('ci')
  await bench.clock.advance(4_000)
  expect(await bench.placement('ci')).toBeUndefined()
  bench.hear()
  await bench.until(async () => (await bench.placement('ci'))?.host === 'h1', 1_000)
})

test('it is tried all the same when nothing is heard for long', async () => {
  const bench = await afterLeader('h1')
  await bench.host({ name: 'h1' })
  const leadership = bench.leader('h9', bench.store, bench.facts)
  await bench.until(() => leadership.leads())
  await bench.machine('ci')
  await bench.clock.advance(29_000)
  expect(await bench.placement('ci')).toBeUndefined()
  await bench.until(async () => (await bench.placement('ci'))?.host === 'h1', 3_000)
})

test('a host that was never heard by gossip is no less than others', async () => {
  const bench = await afterLeader('h1')
  await bench.host({ name: 'h1' })
  const leadership = bench.leader('h9')
  await bench.until(() => leadership.leads())
  await bench.machine('ci')
  await bench.until(async () => (await bench.placement('ci'))?.host === 'h1', 1_000)
})
