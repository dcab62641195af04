import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { createSeededRandom } from '../../base/random.ts'
import { chunkBytes } from '../layer-index.ts'
import { allBits, emptyBits, hasBit, putBit } from './bitmap.ts'
import { type Choice, createChoice, type Room } from './choice.ts'
import { numberChunks } from './chunk-numbers.ts'
import { divide, groupChunks } from './shares.ts'

const room: Room = { bytes: 64 * chunkBytes, count: 4, background: true, relief: false }

function makeChoice(count: number, init: { host?: string; seed?: number; here?: number[] } = {}) {
  const chunks = Array.from({ length: count }, (_, at) => ({
    digest: `sha256:${at}`,
    extents: [{ offsetBytes: at * chunkBytes, lengthBytes: chunkBytes }],
  }))
  const index = { virtualSizeBytes: count * chunkBytes, chunks, zeros: [] }
  const { host = 'mac-1', seed = 1, here = [] } = init
  return createChoice(
    { host, numbers: numberChunks([{ index }]), isHere: number => here.includes(number) },
    { random: createSeededRandom(seed) },
  )
}

function bits(count: number, numbers: number[]): Uint8Array {
  const held = emptyBits(count)
  for (const number of numbers) putBit(held, number, true)
  return held
}

/** Asks and remembers that it was asked. */
function take(choice: Choice, id: string, nowMs = 0, more: Partial<Room> = {}): number[] {
  const chosen = choice.choose(id, { ...room, ...more }, nowMs)
  choice.asked(id, chosen, 100, nowMs)
  return chosen
}

describe('which chunk is asked of which source', () => {
  test('an origin is not asked for what a peer has, and a peer not for what it has not', () => {
    const choice = makeChoice(8)
    choice.addSource('origin', true)
    choice.addSource('peer', false)
    choice.setHeld('peer', bits(8, [1, 2, 3]))
    expect(take(choice, 'origin', 0, { count: 99 }).sort()).toEqual([0, 4, 5, 6, 7])
    expect(take(choice, 'peer', 0, { count: 99 }).sort()).toEqual([1, 2, 3])
    expect(take(choice, 'origin')).toEqual([])
  })

  test('a peer that fails is not counted on, and counts again when it is back', () => {
    const choice = makeChoice(8)
    choice.addSource('origin', true)
    choice.addSource('peer', false)
    choice.setHeld('peer', undefined)
    expect(choice.choose('origin', room, 0)).toEqual([])
    choice.setUsable('peer', false)
    expect(choice.choose('peer', room, 0)).toEqual([])
    expect(choice.choose('origin', room, 0)).toHaveLength(4)
    choice.setUsable('peer', true)
    expect(choice.choose('origin', room, 0)).toEqual([])
    choice.dropSource('peer')
    expect(choice.choose('origin', room, 0)).toHaveLength(4)
  })

  test('the rarest first', () => {
    const choice = makeChoice(16)
    for (const id of ['a', 'b', 'c']) choice.addSource(id, false)
    choice.setHeld('a', undefined)
    choice.setHeld('b', bits(16, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]))
    choice.setHeld('c', bits(16, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]))
    expect(take(choice, 'a', 0, { count: 2 }).sort()).toEqual([14, 15])
    expect(take(choice, 'a', 0, { count: 3 }).sort()).toEqual([11, 12, 13])
  })

  test('hosts begin with different chunks', () => {
    const firsts = [1, 2, 3, 4, 5, 6, 7, 8].map(seed => {
      const choice = makeChoice(400, { seed })
      choice.addSource('peer', false)
      choice.setHeld('peer', undefined)
      return choice.choose('peer', { ...room, count: 1 }, 0)[0]
    })
    expect(new Set(firsts).size).toBeGreaterThan(5)
  })

  test('what a guest waits for comes before all, from a peer if one has it, else at once', () => {
    const choice = makeChoice(64)
    choice.addSource('origin', true)
    choice.addSource('peer', false)
    choice.setHeld('peer', bits(64, [9]))
    for (const number of [9, 40]) choice.urge(number, 0)
    expect(choice.chooseUrgent('origin', 0)).toBe(40)
    expect(choice.chooseUrgent('peer', 0)).toBe(9)
    choice.asked('origin', [40], 100, 0)
    expect(choice.chooseUrgent('origin', 0)).toBeUndefined()
    // The peer had no room: after a moment nobody waits for it any longer.
    expect(choice.chooseUrgent('origin', 300)).toBe(9)
    choice.asked('peer', [9], 100, 0)
    // It is asked and does not answer: twice, never three times.
    expect(choice.chooseUrgent('origin', 200)).toBeUndefined()
    expect(choice.chooseUrgent('origin', 300)).toBe(9)
    choice.asked('origin', [9], 100, 300)
    choice.addSource('third', true)
    expect(choice.chooseUrgent('third', 10_000)).toBe(40)
    choice.calm(40)
    expect(choice.chooseUrgent('third', 10_000)).toBeUndefined()
  })

  test('guesses come before the rest, and alone when the rest is to wait', () => {
    const choice = makeChoice(64)
    choice.addSource('origin', true)
    choice.guess([20, 21, 22])
    expect(take(choice, 'origin', 0, { background: false })).toEqual([20, 21, 22])
    expect(take(choice, 'origin', 0, { background: false })).toEqual([])
    expect(take(choice, 'origin')).toHaveLength(4)
  })

  test('what does not come is asked of a second source, sooner when little is left', () => {
    const choice = makeChoice(40)
    choice.addSource('a', false)
    choice.addSource('b', false)
    for (const id of ['a', 'b']) choice.setHeld(id, undefined)
    take(choice, 'a', 0, { count: 40 })
    expect(take(choice, 'b', 1_500)).toEqual([])
    expect(take(choice, 'b', 2_100)).toHaveLength(4)
    for (let number = 0; number < 40; number += 2) choice.arrived(number)
    expect(choice.missingCount()).toBe(20)
    take(choice, 'b', 500, { count: 40 })
    choice.addSource('c', false)
    choice.setHeld('c', undefined)
    expect(take(choice, 'c', 100_000)).toEqual([])
  })

  test('what a source had and did not bring is not asked of it for a while', () => {
    const choice = makeChoice(1)
    choice.addSource('origin', true)
    choice.failedToBring('origin', 0, 1_000)
    expect(choice.choose('origin', room, 999)).toEqual([])
    expect(choice.choose('origin', room, 1_001)).toEqual([0])
  })

  test('a slow fleet is helped: the origin is asked for what peers have, when told so', () => {
    const choice = makeChoice(8)
    choice.addSource('origin', true)
    choice.addSource('peer', false)
    choice.setHeld('peer', undefined)
    expect(choice.choose('origin', room, 0)).toEqual([])
    expect(choice.choose('origin', { ...room, relief: true }, 0)).toHaveLength(4)
    choice.setHeld('peer', bits(8, [1, 2, 3]))
    const all = choice.choose('origin', { ...room, count: 99, relief: true }, 0)
    expect(all.sort()).toEqual([0, 1, 2, 3, 4, 5, 6, 7])
  })

  test('whatever happens, only what is missing and had is chosen, and never asked of three', () => {
    const action = fc.record({
      kind: fc.constantFrom('choose', 'urgent', 'arrive', 'hold', 'fail', 'urge', 'lose'),
      id: fc.constantFrom('o', 'a', 'b'),
      number: fc.nat(29),
      held: fc.uint8Array({ minLength: 4, maxLength: 4 }),
    })
    fc.assert(
      fc.property(fc.array(action, { maxLength: 80 }), fc.nat(), (actions, seed) => {
        const choice = makeChoice(30, { seed, here: [3, 4] })
        choice.addSource('o', true)
        for (const id of ['a', 'b']) choice.addSource(id, false)
        const here = new Set([3, 4])
        const held = new Map([['o', allBits(30)]])
        const asked = new Map<number, string[]>()
        for (const [at, { kind, id, number, held: some }] of actions.entries()) {
          const nowMs = at * 700
          if (kind === 'arrive' || kind === 'lose') {
            for (const other of asked.get(number) ?? []) choice.ended(other, number)
            asked.delete(number)
          }
          if (kind === 'arrive') {
            here.add(number)
            choice.arrived(number)
          } else if (kind === 'lose') {
            here.delete(number)
            choice.lost(number)
          } else if (kind === 'hold' && id !== 'o') {
            held.set(id, some)
            choice.setHeld(id, some.slice())
          } else if (kind === 'fail') choice.setUsable(id, number % 2 === 0)
          else if (kind === 'urge') choice.urge(number, nowMs)
          const urgent = kind === 'urgent' ? choice.chooseUrgent(id, nowMs) : undefined
          const chosen = kind === 'choose' ? choice.choose(id, room, nowMs) : [urgent ?? []].flat()
          choice.asked(id, chosen, 100, nowMs)
          for (const each of chosen) {
            expect(here.has(each)).toBe(false)
            expect(hasBit(held.get(id) ?? emptyBits(30), each)).toBe(true)
            const before = asked.get(each) ?? []
            expect(before).not.toContain(id)
            expect(before.length).toBeLessThan(2)
            asked.set(each, [...before, id])
          }
          expect(choice.missingCount()).toBe(30 - here.size)
        }
      }),
      { numRuns: 300 },
    )
  })

  test('as long as a source has something that is missing, there is something to choose', () => {
    fc.assert(
      fc.property(
        fc.uniqueArray(fc.nat(199)),
        fc.array(fc.string(), { maxLength: 9 }),
        (here, hosts) => {
          const choice = makeChoice(200, { here })
          choice.addSource('origin', true)
          choice.setSharers(hosts)
          // Those who share bring nothing: in the end they are not counted on.
          let left = 200 - new Set(here).size
          for (let step = 0; left > 0; step++) {
            const chosen = choice.choose('origin', room, 0)
            if (chosen.length === 0) choice.setSharers([])
            for (const number of chosen) choice.arrived(number)
            left -= chosen.length
            expect(step).toBeLessThan(300)
          }
          expect(choice.missingCount()).toBe(0)
        },
      ),
      { numRuns: 50 },
    )
  })
})

describe('shares', () => {
  const hosts = Array.from({ length: 8 }, (_, at) => `mac-${at}`)

  test('hold every group once, evenly enough, and are the same whoever divides', () => {
    const shares = divide(800, hosts)
    const all = hosts.flatMap(host => shares.of(host))
    expect(all.sort((a, b) => a - b)).toEqual(Array.from({ length: 800 }, (_, at) => at))
    for (const host of hosts) {
      expect(shares.of(host).length).toBeGreaterThan(60)
      expect(shares.of(host).length).toBeLessThan(140)
      expect(divide(800, hosts.toReversed()).of(host)).toEqual(shares.of(host))
    }
  })

  test('a host that leaves moves only what it had, to the heirs', () => {
    const before = divide(800, hosts)
    const after = divide(800, hosts.slice(1))
    for (const host of hosts.slice(1)) {
      const now = after.of(host)
      expect(now).toEqual(expect.arrayContaining([...before.of(host)]))
      for (const group of now.filter(each => !before.of(host).includes(each))) {
        expect(before.of('mac-0')).toContain(group)
        expect(before.heirOf(group)).toBe(host)
      }
    }
  })

  test('are of neighbours where chunks are many, and of single chunks where they are few', () => {
    expect(groupChunks(10)).toEqual({ chunks: 1, count: 10 })
    expect(groupChunks(1_500)).toEqual({ chunks: 2, count: 750 })
    expect(groupChunks(100_001)).toEqual({ chunks: 8, count: 12_501 })
    expect(groupChunks(0)).toEqual({ chunks: 1, count: 0 })
  })

  test('what another leaves to the last is taken over, from its end, by one host', () => {
    const choices = hosts.map(host => {
      const choice = makeChoice(400, { host })
      choice.addSource('origin', true)
      choice.setSharers(hosts.filter(other => other !== host))
      return choice
    })
    const shares = divide(400, hosts)
    const own = choices.map((choice, at) => {
      const mine = shares.of(hosts[at] ?? '')
      const chosen = choice.choose('origin', { ...room, count: mine.length }, 0)
      expect(chosen).toEqual(mine)
      choice.asked('origin', chosen, 100, 0)
      return chosen
    })
    expect(own.flat().length).toBe(400)
    const helped = choices.map(choice => choice.choose('origin', { ...room, count: 1 }, 0))
    expect(new Set(helped.flat()).size).toBe(helped.flat().length)
    for (const group of helped.flat()) {
      const owner = hosts.find(host => shares.of(host).includes(group)) ?? ''
      expect(shares.of(owner).indexOf(group)).toBeGreaterThan(7)
    }
  })
})
