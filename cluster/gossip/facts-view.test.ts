import { describe, expect, test } from 'vitest'
import { createManualClock } from '../../base/manual-clock.ts'
import { plainFacts } from '../../test/support/facts.ts'
import { createAllowList } from '../peers/allow-list.ts'
import type { SignedMessage } from '../peers/signed-message.ts'
import { differsEnough } from './changes.ts'
import { encodeFacts, messageOf } from './facts-message.ts'
import { createFactsView } from './facts-view.ts'

const saying = (peerId: string, sequence: number, cpuFraction = 0.1): SignedMessage => ({
  peerId,
  sequence: 1n,
  data: encodeFacts(messageOf(sequence, { ...plainFacts, cpuFraction })),
  signature: new Uint8Array(64),
})
const memberOf = (name: string, peerId = `peer-${name}`) => ({
  name,
  peerId,
  address: { host: '192.0.2.1', gossipPort: 7481 },
})

function createScene() {
  const clock = createManualClock()
  const members = createAllowList([memberOf('a'), memberOf('b')])
  const view = createFactsView({ clock, members })
  const told: string[] = []
  view.onChange(host => told.push(host))
  return { clock, members, view, told }
}

describe('the view of facts', () => {
  test('takes the newest of each member; older and doubled messages never replace it', async () => {
    const { clock, view, told } = createScene()
    expect(view.offer(saying('peer-a', 10, 0.5))).toBe('new')
    await clock.advance(1_000)
    expect(view.offer(saying('peer-a', 10, 0.9))).toBe('old')
    expect(view.offer(saying('peer-a', 9, 0.9))).toBe('old')
    expect(view.of('a')).toMatchObject({ cpuFraction: 0.5, receivedAtMs: 0 })
    expect(view.offer(saying('peer-a', 11, 0.9))).toBe('new')
    expect(view.of('a')).toMatchObject({ host: 'a', cpuFraction: 0.9, receivedAtMs: 1_000 })
    expect(view.all()).toHaveLength(1)
    expect(told).toEqual(['a', 'a'])
  })

  test('counts the age by our clock, and what was handed on as older', async () => {
    const { clock, view } = createScene()
    await clock.advance(5_000)
    view.offer(saying('peer-b', 2 ** 51), 3_000)
    expect(view.of('b')?.receivedAtMs).toBe(2_000)
    expect(view.held()).toMatchObject([{ receivedAtMs: 2_000, sequence: 2 ** 51 }])
  })

  test('takes nothing of strangers and no garbage', () => {
    const { view, told } = createScene()
    expect(view.offer(saying('peer-c', 1))).toBe('stranger')
    expect(view.offer({ ...saying('peer-a', 1), data: Buffer.from('garbage') })).toBe('garbage')
    expect(view.all()).toEqual([])
    expect(told).toEqual([])
  })

  test('forgets who is no member any more, and starts over when he comes back', () => {
    const { members, view, told } = createScene()
    view.offer(saying('peer-a', 10))
    view.offer(saying('peer-b', 10))
    members.set([memberOf('b')])
    expect(view.all().map(({ host }) => host)).toEqual(['b'])
    expect(view.of('a')).toBeUndefined()
    expect(view.sequenceOf('peer-a')).toBe(-1)
    // The same name, another key: nothing of the first one's is his.
    members.set([memberOf('a', 'peer-new'), memberOf('b')])
    expect(view.of('a')).toBeUndefined()
    expect(view.offer(saying('peer-new', 1))).toBe('new')
    expect(view.offer(saying('peer-a', 99))).toBe('stranger')
    expect(view.of('a')).toBeDefined()
    expect(told).toEqual(['a', 'b', 'a', 'a'])
  })

  test('ends with its listeners', () => {
    const { members, view, told } = createScene()
    view.stop()
    members.set([])
    expect(told).toEqual([])
  })
})

test('a change is worth a message when it matters to placement', () => {
  expect(differsEnough(plainFacts, { ...plainFacts })).toBe(false)
  expect(
    differsEnough(plainFacts, { ...plainFacts, cpuFraction: 0.15, load1: 1, memoryUsedBytes: 5e9 }),
  ).toBe(false)
  for (const change of [
    { ready: false },
    { cpuFraction: 0.3 },
    { load1: 3 },
    { memoryUsedBytes: 6e9 },
    { diskFreeBytes: 300e9 },
    { reserved: { ...plainFacts.reserved, machines: 1 } },
    { imageDigests: ['sha256:1'] },
  ]) {
    expect(differsEnough(plainFacts, { ...plainFacts, ...change })).toBe(true)
  }
})
