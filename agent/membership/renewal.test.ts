import { expect, onTestFinished, test } from 'vitest'
import { defaultLimits } from '../../base/limits.ts'
import type { Log } from '../../base/log.ts'
import { createManualClock, type ManualClock } from '../../base/manual-clock.ts'
import { systemRandom } from '../../base/random.ts'
import { makeMachine } from '../../test/support/fleet-hosts.ts'
import { createFleet } from './create-fleet.ts'
import { lifeLeft, startRenewal } from './renewal.ts'

const hourMs = 3_600_000

async function setUp() {
  const clock = createManualClock(Date.now())
  const machine = makeMachine()
  const said: string[] = []
  const say = (level: string) => (_fields: object, text: string) => said.push(`${level}: ${text}`)
  const log: Log = {
    debug: () => {},
    info: say('info'),
    warn: say('warn'),
    error: say('error'),
    child: () => log,
  }
  const folder = await createFleet({ ...machine, revisionBase: 0 }, { clock, random: systemRandom })
  const renewing = { folder, address: () => machine.address, version: '1', clock, log }
  let renewed = 0
  const renewal = startRenewal(
    { ...renewing, random: systemRandom, limits: defaultLimits },
    async () => {
      renewed++
    },
  )
  onTestFinished(() => renewal.stop())
  return { clock, folder, said, renewed: () => renewed }
}

/** Goes on until something holds; files are written in real time, so the clock waits for them. */
async function advanceUntil(clock: ManualClock, holds: () => boolean): Promise<void> {
  await expect
    .poll(
      async () => {
        if (!holds()) await clock.advance(30_000)
        return holds()
      },
      { interval: 5, timeout: 5_000 },
    )
    .toBe(true)
}

test('certificates are renewed at two thirds of their life, again and again', async () => {
  const { clock, folder, renewed } = await setUp()
  await clock.advance(15 * hourMs)
  expect(renewed()).toBe(0)
  expect(lifeLeft(folder, clock)).toBeGreaterThan(0.35)
  await clock.advance(1.9 * hourMs)
  await advanceUntil(clock, () => renewed() === 1)
  expect(lifeLeft(folder, clock)).toBeGreaterThan(0.9)
  await clock.advance(13 * hourMs)
  expect(renewed()).toBe(1)
  await clock.advance(3.9 * hourMs)
  await advanceUntil(clock, () => renewed() === 2)
})

test('while nobody signs it is tried on, and told louder when little is left', async () => {
  const { clock, folder, said, renewed } = await setUp()
  const pairs = folder.authorityPairs()
  await folder.saveAuthorityPairs([])
  await clock.advance(16.9 * hourMs)
  await advanceUntil(clock, () => said.length > 3)
  expect(new Set(said)).toEqual(
    new Set(['warn: the certificates of this host could not be renewed']),
  )
  const tries = said.length
  await clock.advance(1.5 * hourMs)
  await advanceUntil(clock, () => said.some(line => line.startsWith('error: ')))
  // A minute between two tries at most, and not much less.
  expect(said.length - tries).toBeLessThan(120)
  await folder.saveAuthorityPairs(pairs)
  await advanceUntil(clock, () => renewed() === 1)
})
