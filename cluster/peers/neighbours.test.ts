import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { PeerMember } from './allow-list.ts'
import { chooseNeighbours, orderNeighbours } from './neighbours.ts'

const fleetOf = (count: number, racks: number): PeerMember[] =>
  Array.from({ length: count }, (_, number) => ({
    name: `host-${number}`,
    peerId: `peer-${number}`,
    rack: `rack-${number % racks}`,
    address: { host: '192.0.2.1', gossipPort: 7481 },
  }))

/** Whom each is connected with, by whoever dialled. */
function connect(members: PeerMember[], dead: ReadonlySet<string>): Map<string, Set<string>> {
  const links = new Map(members.map(({ peerId }) => [peerId, new Set<string>()]))
  for (const { peerId } of members) {
    if (dead.has(peerId)) continue
    const chosen = chooseNeighbours(orderNeighbours(peerId, members), other => dead.has(other))
    for (const other of chosen) {
      if (dead.has(other.peerId)) continue
      links.get(peerId)?.add(other.peerId)
      links.get(other.peerId)?.add(peerId)
    }
  }
  return links
}

function reach(links: Map<string, Set<string>>, from: string): Set<string> {
  const seen = new Set([from])
  for (const next of seen) for (const other of links.get(next) ?? []) seen.add(other)
  return seen
}

describe('neighbours', () => {
  test('are all when there are few, and six to be dialled when there are many', () => {
    const few = fleetOf(9, 2)
    expect(chooseNeighbours(orderNeighbours('peer-0', few), () => false)).toHaveLength(8)
    const many = fleetOf(200, 10)
    const chosen = chooseNeighbours(orderNeighbours('peer-0', many), () => false)
    expect(chosen).toHaveLength(6)
    const near = chosen.filter(({ rack }) => rack === 'rack-0')
    expect(near.length).toBeGreaterThanOrEqual(2)
    expect(near.length).toBeLessThanOrEqual(3)
    expect(chooseNeighbours(orderNeighbours('peer-0', fleetOf(1, 1)), () => false)).toEqual([])
    expect(orderNeighbours('peer-0', many)).toHaveLength(199)
  })

  test('are the same in whatever order the members are listed', () => {
    const members = fleetOf(50, 3)
    const names = (list: PeerMember[]): string[] =>
      orderNeighbours('peer-7', list).map(({ name }) => name)
    expect(names([...members].reverse())).toEqual(names(members))
  })

  test('hang together whoever is dead, and nobody has too many', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 2, max: 120 }),
        fc.integer({ min: 1, max: 8 }),
        fc.array(fc.integer({ min: 0, max: 119 }), { maxLength: 40 }),
        (count, racks, deadNumbers) => {
          const members = fleetOf(count, racks)
          const dead = new Set(deadNumbers.map(number => `peer-${number}`))
          const alive = members.filter(({ peerId }) => !dead.has(peerId))
          const links = connect(members, dead)
          const [first] = alive
          if (first === undefined) return
          expect(reach(links, first.peerId).size).toBe(alive.length)
          for (const { peerId } of alive) expect(links.get(peerId)?.size).toBeLessThan(32)
        },
      ),
      { numRuns: 40 },
    )
  })

  test('that do not answer are tried still, and others besides', () => {
    const ordered = orderNeighbours('peer-0', fleetOf(40, 2))
    const dead = new Set(ordered.slice(0, 3).map(({ peerId }) => peerId))
    const chosen = chooseNeighbours(ordered, peerId => dead.has(peerId))
    expect(chosen).toHaveLength(9)
    expect(chooseNeighbours(ordered, () => true)).toHaveLength(39)
  })
})
