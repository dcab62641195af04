import { expect, onTestFinished, test } from 'vitest'
import { createSwarm, type Swarm, type SwarmInit } from '../../test/support/fill-swarm.ts'

function startSwarm(init: Partial<SwarmInit> = {}): Swarm & { copyMs: number } {
  const all = { hostCount: 8, chunkCount: 256, bytesPerSecond: 12.5e6, seed: 1, ...init }
  const swarm = createSwarm(all)
  onTestFinished(() => swarm.close())
  return { ...swarm, copyMs: (swarm.imageBytes / all.bytesPerSecond) * 1000 }
}

/** Runs until all that are meant have it. @returns copies that the registry sent, and time in copies */
async function run(swarm: Swarm & { copyMs: number }, hosts = swarm.hosts) {
  const endMs = await swarm.network.runUntil(
    () => hosts.every(host => host.isDone()),
    20 * swarm.copyMs,
  )
  expect(
    hosts.filter(host => !host.isDone()).map(({ name, fill }) => [name, fill.progress()]),
  ).toEqual([])
  const copies = swarm.network.sentBytes('registry') / swarm.imageBytes
  return { copies, time: endMs / swarm.copyMs }
}

test.each([1, 2])('eight hosts at once take one copy from the registry (seed %i)', async seed => {
  const { copies, time } = await run(startSwarm({ seed }))
  expect(copies).toBeLessThan(1.15)
  expect(time).toBeLessThan(1.4)
})

test('one that is ten times slower does not keep the others waiting', async () => {
  const swarm = startSwarm()
  swarm.network.setLink('mac-3', 1.25e6)
  const { copies, time } = await run(
    swarm,
    swarm.hosts.filter(({ name }) => name !== 'mac-3'),
  )
  expect(copies).toBeLessThan(1.3)
  expect(time).toBeLessThan(2)
})

test('hosts that die take nothing with them', async () => {
  const swarm = startSwarm()
  await swarm.network.runUntil(() => false, swarm.copyMs / 3)
  for (const name of ['mac-1', 'mac-2']) {
    swarm.setDown(name, true)
    swarm.network.setLink(name, 1)
  }
  const { copies, time } = await run(
    swarm,
    swarm.hosts.filter((_, at) => at < 1 || at > 2),
  )
  expect(copies).toBeLessThan(1.3)
  expect(time).toBeLessThan(2)
})

test('a registry that is away for a while only delays', async () => {
  const swarm = startSwarm()
  await swarm.network.runUntil(() => false, swarm.copyMs / 4)
  swarm.setDown('registry', true)
  await swarm.network.runUntil(() => false, 3 * swarm.copyMs)
  for (const { fill } of swarm.hosts) {
    expect(fill.progress().stalled).toContain('connection refused')
  }
  swarm.setDown('registry', false)
  const { copies, time } = await run(swarm)
  expect(copies).toBeLessThan(1.3)
  expect(time).toBeLessThan(6)
})

test.each([
  { hostCount: 1, chunkCount: 64, most: 1.05 },
  { hostCount: 2, chunkCount: 128, most: 1.3 },
  { hostCount: 8, chunkCount: 1024, bytesPerSecond: 100e6, most: 1.4 },
])('so do others: %o', async ({ most, ...init }) => {
  const { copies, time } = await run(startSwarm(init))
  expect(copies).toBeLessThan(1.15)
  expect(time).toBeLessThan(most)
})
