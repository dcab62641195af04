import { describe, expect, test } from 'vitest'
import { silentLog } from '../../base/log.ts'
import { createManualClock } from '../../base/manual-clock.ts'
import { createSeededRandom } from '../../base/random.ts'
import { createAllowList } from './allow-list.ts'
import { startRedial } from './redial.ts'

function createScene(count: number, down = false) {
  const clock = createManualClock()
  const memberOf = (number: number) => ({
    name: `host-${number}`,
    peerId: `peer-${number}`,
    address: { host: '192.0.2.1', gossipPort: 7481 },
  })
  const members = createAllowList(Array.from({ length: count }, (_, number) => memberOf(number)))
  const connected = new Set<string>()
  const dials: { peerId: string; atMs: number }[] = []
  const state = { down }
  const redial = startRedial('peer-0', {
    clock,
    random: createSeededRandom(1),
    log: silentLog,
    members,
    isConnected: peerId => connected.has(peerId),
    async dial({ peerId }) {
      dials.push({ peerId, atMs: clock.monotonicMs() })
      if (state.down) throw new Error('nobody there')
      connected.add(peerId)
    },
  })
  return { clock, members, memberOf, connected, dials, state, redial }
}

describe('redialling', () => {
  test('goes on for ever, ever more seldom, and not in step', async () => {
    const { clock, dials, state, connected, redial } = createScene(2, true)
    await clock.advance(600_000)
    const gaps = dials.slice(10).map(({ atMs }, index) => atMs - (dials[index + 9]?.atMs ?? 0))
    expect(dials.length).toBeGreaterThan(600_000 / 17_000)
    expect(Math.max(...gaps)).toBeLessThan(17_000)
    expect(Math.min(...gaps)).toBeGreaterThan(4_000)
    expect(new Set(gaps).size).toBeGreaterThan(5)
    state.down = false
    await clock.advance(20_000)
    expect([...connected]).toEqual(['peer-1'])
    redial.stop()
    expect(clock.pendingTimers()).toBe(0)
  })

  test('connects again when a connection ended, and with those who are new', async () => {
    const { clock, members, memberOf, connected, dials, redial } = createScene(3)
    await clock.advance(2_000)
    expect(connected.size).toBe(2)
    connected.delete('peer-2')
    redial.look()
    await clock.advance(2_000)
    expect(connected.size).toBe(2)
    members.set([...members.list(), memberOf(3)])
    await clock.advance(2_000)
    expect(connected.has('peer-3')).toBe(true)
    expect(redial.isNeighbour('peer-3')).toBe(true)
    const before = dials.length
    await clock.advance(60_000)
    expect(dials).toHaveLength(before)
    redial.stop()
  })
})
