import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import type { VirtualMachine } from '../../resources/virtual-machine.ts'
import { createTestFleet, type TestFleet } from '../cluster/fleet.ts'
import type { TestRack } from '../cluster/rack.ts'
import { until } from '../support/host.ts'

let rack: TestRack
let fleet: TestFleet
beforeAll(async () => {
  fleet = await createTestFleet({ hosts: 4 }, made => {
    rack = made
  })
  await fleet.untilVoters('mac-1', 3)
})
afterEach(() => rack?.links.heal())
afterAll(() => rack?.remove())

const isRunning = ({ status }: VirtualMachine) => status?.phase === 'Running'

/** Takes more than a minute: the guardian bears a silent daemon for 20 s. */
const isLong = process.env['MACFLEET_TEST_LONG'] === '1'

/** One machine that may be replaced and one that may not, both on a host. */
interface Pair {
  host: string
  moves: string
  waits: string
}

let pairs = 0
async function fill(host: string): Promise<Pair> {
  const number = ++pairs
  const [moves, waits] = [`moves-${number}`, `waits-${number}`]
  await fleet.place('mac-1', host, moves, { onHostLoss: 'Replace' })
  await fleet.place('mac-1', host, waits, { onHostLoss: 'Wait' })
  await rack.untilMachine('mac-1', moves, isRunning)
  await rack.untilMachine('mac-1', waits, isRunning)
  return { host, moves, waits }
}

const removePair = async ({ moves, waits }: Pair): Promise<void> => {
  await fleet.remove('mac-1', moves)
  await fleet.remove('mac-1', waits)
}

/** The old copy is gone before the new one begins, as the kernel has it. */
async function expectReplaced({ host, moves }: Pair, what: string): Promise<void> {
  const runs = await until(
    `${moves} runs elsewhere`,
    async () => {
      const found = await fleet.runs(moves)
      return found.some(run => run.host !== host && run.goneMs === undefined) ? found : undefined
    },
    90_000,
  )
  const [old, next] = runs
  const goneMs = old?.goneMs ?? Number.POSITIVE_INFINITY
  expect(old?.host).toBe(host)
  expect(next?.startedMs).toBeGreaterThan(goneMs)
  const apartMs = (next?.startedMs ?? 0) - goneMs
  console.info(`${what}: ${Math.round(apartMs)} ms from the old copy's end to the new one's start`)
}

/** The guest that may not be replaced has run all the time. */
async function expectSpared({ host, waits }: Pair): Promise<void> {
  const runs = await fleet.runs(waits)
  expect(runs.map(run => [run.host, run.goneMs])).toEqual([[host, undefined]])
}

/** Nothing of the replaced machine is left on its old host, and the one that waits is known. */
async function expectTidy({ host, moves, waits }: Pair): Promise<void> {
  const { metadata } = await fleet.machine('mac-1', moves)
  const { dataDir, processes } = rack.host(host)
  await until('nothing is left of it', () => {
    if (processes('guest', metadata.uid).length > 0) return undefined
    return existsSync(join(dataDir, 'guests', metadata.uid ?? '')) ? undefined : true
  })
  await rack.untilMachine('mac-1', waits, isRunning)
}

describe('a machine never runs twice', { concurrent: false }, () => {
  test('with a link cut, a guardian frozen, and a guardian killed', async () => {
    const cut = await fill('mac-4')
    const frozen = await fill('mac-2')
    const killed = await fill('mac-3')
    await rack.links.cut(cut.host)
    expect(rack.host(frozen.host).freeze('guardian')).toBe(1)
    await expectReplaced(cut, 'link cut')
    await expectReplaced(frozen, 'guardian frozen')
    await expectSpared(cut)
    await expectSpared(frozen)
    expect(rack.host(frozen.host).thaw('guardian')).toBe(1)
    await rack.links.heal()
    // All its guests end with it, and begin again; those that wait do so where they were.
    expect(await rack.host(killed.host).kill('guardian')).toBe(1)
    for (const name of [killed.moves, killed.waits]) {
      await until(`${name} runs again`, async () => {
        const runs = await fleet.runs(name)
        return runs.length > 1 && runs.at(-1)?.goneMs === undefined ? true : undefined
      })
    }
    const { host } = killed
    expect((await fleet.runs(killed.waits)).map(run => run.host)).toEqual([host, host])
    for (const pair of [cut, frozen]) {
      await expectTidy(pair)
      await expectSpared(pair)
    }
    expect(await fleet.overlaps()).toEqual([])
    for (const pair of [cut, frozen, killed]) await removePair(pair)
  }, 180_000)

  test.runIf(isLong)(
    'with a daemon frozen, and a daemon gone',
    async () => {
      const frozen = await fill('mac-2')
      const gone = await fill('mac-3')
      expect(rack.host(frozen.host).freeze('daemon')).toBe(1)
      expect(await rack.host(gone.host).kill('daemon')).toBe(1)
      await expectReplaced(frozen, 'daemon frozen')
      await expectReplaced(gone, 'daemon gone')
      for (const pair of [frozen, gone]) await expectSpared(pair)
      expect(rack.host(frozen.host).thaw('daemon')).toBe(1)
      await rack.host(gone.host).start()
      for (const pair of [frozen, gone]) {
        await expectTidy(pair)
        await expectSpared(pair)
      }
      expect(await fleet.overlaps()).toEqual([])
      for (const pair of [frozen, gone]) await removePair(pair)
    },
    180_000,
  )
})
