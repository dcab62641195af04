import { describe, expect, test } from 'vitest'
import { type Sabotage, type SimulationInit, simulate } from './simulate.ts'
import { tellStory } from './story.ts'

const isLong = process.env['MACFLEET_TEST_LONG'] !== undefined
/** Fleets of these sizes, each with so many seeds. */
const fleets = isLong
  ? [
      { hosts: 3, seeds: 200 },
      { hosts: 5, seeds: 200 },
      { hosts: 12, seeds: 80 },
      { hosts: 30, seeds: 20 },
    ]
  : [
      { hosts: 3, seeds: 16 },
      { hosts: 5, seeds: 12 },
      { hosts: 12, seeds: 4 },
      { hosts: 30, seeds: 2 },
    ]
/** A run takes about a second; a machine that has much else to do takes its time. */
const patienceMs = isLong ? 3_600_000 : 120_000

describe('a fleet with faults', () => {
  test.each(fleets)(
    'of $hosts hosts keeps what it promised, with $seeds seeds',
    async ({ hosts, seeds }) => {
      for (let seed = 1; seed <= seeds; seed++) {
        const result = await simulate({ seed, hosts })
        if (result.violation !== undefined) throw new Error(tellStory(result))
        expect(result.acknowledged).toBeGreaterThan(0)
      }
    },
    patienceMs,
  )

  test(
    'goes the same way with the same seed, and another way with another',
    async () => {
      const run = (seed: number) => simulate({ seed, hosts: 4, forMs: 20_000 })
      const [one, again, other] = [await run(3), await run(3), await run(4)]
      expect(again.trace).toBe(one.trace)
      expect(again.events).toBe(one.events)
      expect(other.trace).not.toBe(one.trace)
    },
    patienceMs,
  )
})

describe('the simulation sees', () => {
  /** Runs seeds until one of them is caught. */
  async function firstCaught(
    sabotage: Sabotage,
    init: Partial<SimulationInit> & { seed: number; seeds: number },
  ): Promise<string | undefined> {
    for (let seed = init.seed; seed < init.seed + init.seeds; seed++) {
      const { violation } = await simulate({ hosts: 5, ...init, seed, sabotage })
      if (violation !== undefined) return violation.message
    }
    return undefined
  }

  test('guests that nobody ends when their host is cut off', patience(), async () => {
    const caught = await firstCaught({ spares: true }, { seed: 1, seeds: 40 })
    expect(caught).toMatch(/runs twice/)
  })

  test('a leader that does not wait until the guests are dead', patience(), async () => {
    const caught = await firstCaught({ timing: { graceMs: 0 } }, { seed: 1, seeds: 40 })
    expect(caught).toMatch(/runs twice/)
  })

  test('what an old leader decided, without the fence', patience(), async () => {
    const leaders = { onlyLeadersFail: true, hosts: 3, forMs: 25_000, seed: 1, seeds: 10 }
    expect(await firstCaught({}, { ...leaders, seeds: 1 })).toBeUndefined()
    expect(await firstCaught({ dropsFence: true }, leaders)).toMatch(/decided in term/)
  })
})

function patience() {
  return { timeout: patienceMs }
}
