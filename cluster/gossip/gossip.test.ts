import { describe, expect, test } from 'vitest'
import {
  eventually,
  introduce,
  plainFacts,
  startTestPeer,
  type TestPeer,
} from '../../test/support/peers.ts'

const start = (count: number): Promise<TestPeer[]> =>
  Promise.all(Array.from({ length: count }, (_, n) => startTestPeer({ host: `host-${n}` })))
const knows = (peer: TestPeer, count: number): boolean => peer.gossip?.facts.all().length === count

describe('gossip', () => {
  test('tells five hosts of each other, a newcomer too, and of a change', async () => {
    const hosts = await start(5)
    introduce(...hosts)
    await eventually('all know all', () => hosts.every(host => knows(host, 5)))
    const newcomer = await startTestPeer({ host: 'newcomer' })
    const beganMs = performance.now()
    introduce(...hosts, newcomer)
    await eventually('the newcomer knows all', () => knows(newcomer, 6), 2_000)
    expect(performance.now() - beganMs).toBeLessThan(2_000)
    await eventually('all know the newcomer', () => hosts.every(host => knows(host, 6)), 2_000)

    const [first] = hosts
    if (first === undefined) throw new Error('no host')
    const digest = `sha256:${'ab'.repeat(32)}`
    first.own = { ...plainFacts, cpuFraction: 0.9, imageDigests: [digest] }
    first.gossip?.changed()
    await eventually(
      'all know of the change',
      () =>
        [...hosts, newcomer].every(({ gossip }) => {
          const facts = gossip?.facts.of('host-0')
          return facts?.cpuFraction === 0.9 && facts.mayHoldImage(digest)
        }),
      1_000,
    )
    const facts = newcomer.gossip?.facts.of('host-0')
    expect(facts).toMatchObject({ host: 'host-0', version: '0.1.0', ready: true, load1: 0.5 })
    expect(facts?.allocatable).toEqual(plainFacts.allocatable)
    expect(facts?.mayHoldImage(`sha256:${'cd'.repeat(32)}`)).toBe(false)
  })
})
