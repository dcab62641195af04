import { expect, onTestFinished, test } from 'vitest'
import { isFailure } from '../../base/errors.ts'
import { createSwarm, type Swarm, type SwarmInit } from '../../test/support/fill-swarm.ts'
import { chunkBytes } from '../layer-index.ts'
import type { Fill } from './fill.ts'

// 100 Mbit/s: a chunk takes 84 ms.
const bytesPerSecond = 12.5e6
const chunkMs = (chunkBytes / bytesPerSecond) * 1000
const never = new AbortController().signal

function startOne(init: Partial<SwarmInit> = {}): { swarm: Swarm; fill: Fill } {
  const swarm = createSwarm({ hostCount: 1, chunkCount: 512, bytesPerSecond, seed: 1, ...init })
  onTestFinished(() => swarm.close())
  const fill = swarm.hosts[0]?.fill
  if (fill === undefined) throw new Error('a swarm has hosts')
  return { swarm, fill }
}

/** Reads, while time goes on. @returns how long it took, and what it threw */
async function read(swarm: Swarm, fill: Fill, offsetBytes: number, signal = never) {
  const { clock } = swarm.network
  const beganMs = clock.monotonicMs()
  let ended = false
  let error: unknown
  const reading = fill.disk
    .read(offsetBytes, 4096, signal)
    .catch(thrown => {
      error = thrown
    })
    .finally(() => {
      ended = true
    })
  await swarm.network.runUntil(() => ended, 300_000)
  await reading
  return { tookMs: clock.monotonicMs() - beganMs, error }
}

const pass = (swarm: Swarm, ms: number) => swarm.network.runUntil(() => false, ms)

test('what a guest waits for overtakes what streams in behind', async () => {
  const { swarm, fill } = startOne()
  await pass(swarm, 5_000)
  const before = fill.progress().doneBytes
  expect(before).toBeGreaterThan(0.9 * 5 * bytesPerSecond - 8 * chunkBytes)
  const first = await read(swarm, fill, 500 * chunkBytes)
  expect(first.tookMs).toBeLessThan(700)
  // From now on next to nothing waits in the network.
  for (const chunk of [490, 470, 450, 430]) {
    await pass(swarm, 1_000)
    const { tookMs } = await read(swarm, fill, chunk * chunkBytes)
    expect(tookMs).toBeLessThan(3.5 * chunkMs)
  }
  // And in between the rest streams in.
  expect(fill.progress().doneBytes - before).toBeGreaterThan(8 * chunkBytes)
})

test('on demand only what is asked for comes, and what is read next', async () => {
  const { swarm, fill } = startOne({ want: 'demand' })
  await pass(swarm, 3_000)
  expect(fill.progress()).toMatchObject({ doneBytes: 0 })
  expect(fill.progress().stalled).toBeUndefined()
  await read(swarm, fill, 300 * chunkBytes)
  await read(swarm, fill, 100 * chunkBytes)
  await pass(swarm, 3_000)
  expect(fill.progress().doneBytes).toBe(2 * chunkBytes)
  fill.setWant('all')
  await pass(swarm, 3_000)
  expect(fill.progress().doneBytes).toBeGreaterThan(20 * chunkBytes)
})

test('who reads in a row hardly waits: it is guessed ahead', async () => {
  const { swarm, fill } = startOne({ want: 'demand' })
  await pass(swarm, 500)
  const beganMs = swarm.network.clock.monotonicMs()
  let waits = 0
  for (let at = 0; at < 24 * chunkBytes; at += chunkBytes / 4) {
    const { tookMs } = await read(swarm, fill, at)
    if (tookMs > 20) waits++
    // The guest does something with it.
    await pass(swarm, 30)
  }
  const took = swarm.network.clock.monotonicMs() - beganMs
  expect(waits).toBeLessThan(8)
  expect(took).toBeLessThan(1.5 * 96 * 40)
})

test('with no source left a read fails in time and says why, and later it goes on', async () => {
  const { swarm, fill } = startOne()
  await pass(swarm, 1_000)
  swarm.setDown('registry', true)
  const { tookMs, error } = await read(swarm, fill, 500 * chunkBytes)
  expect(isFailure(error, 'imageStalled')).toBe(true)
  expect(String(error)).toContain('connection refused')
  expect(tookMs).toBeGreaterThan(5_000)
  expect(tookMs).toBeLessThan(15_000)
  expect(fill.progress().stalled).toContain('connection refused')
  swarm.setDown('registry', false)
  const again = await read(swarm, fill, 500 * chunkBytes)
  expect(again.error).toBeUndefined()
  expect(again.tookMs).toBeLessThan(20_000)
  expect(fill.progress().stalled).toBeUndefined()
})

test('a full disk ends it when nobody reads, and makes it wait when a guest does', async () => {
  const { swarm, fill } = startOne()
  const release = fill.hold()
  await pass(swarm, 1_000)
  swarm.setFull(true)
  await pass(swarm, 3_000)
  expect(fill.progress().stalled).toContain('full')
  expect(swarm.hosts[0]?.failure).toBeUndefined()
  swarm.setFull(false)
  await pass(swarm, 8_000)
  expect(fill.progress().stalled).toBeUndefined()
  const before = fill.progress().doneBytes
  await pass(swarm, 2_000)
  expect(fill.progress().doneBytes).toBeGreaterThan(before)
  release()
  swarm.setFull(true)
  await pass(swarm, 3_000)
  expect(isFailure(swarm.hosts[0]?.failure, 'diskFull')).toBe(true)
})

test('a read that is given up leaves nothing behind, and so does the end', async () => {
  const { swarm, fill } = startOne({ want: 'demand' })
  swarm.setDown('registry', true)
  const giving = new AbortController()
  const reading = read(swarm, fill, 0, giving.signal)
  const left = new Error('the client has left')
  giving.abort(left)
  expect((await reading).error).toBe(left)
  await pass(swarm, 5_000)
  expect(fill.progress().stalled).toBeUndefined()
  const last = read(swarm, fill, 0)
  await fill.close()
  expect(isFailure((await last).error, 'imageFillEnded')).toBe(true)
  expect(swarm.network.clock.pendingTimers()).toBe(0)
})
