import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { VirtualMachine } from '../../resources/virtual-machine.ts'
import { createTestFleet, type TestFleet } from '../cluster/fleet.ts'
import type { TestRack } from '../cluster/rack.ts'
import { until } from '../support/host.ts'

let rack: TestRack
let fleet: TestFleet
beforeAll(async () => {
  fleet = await createTestFleet({ hosts: 3 }, made => {
    rack = made
  })
  await fleet.untilVoters('mac-1', 3)
})
afterAll(() => rack?.remove())

const isRunning = ({ status }: VirtualMachine) => status?.phase === 'Running'
const tell = (what: string, ms: number) => console.info(`${what}: ${(ms / 1000).toFixed(1)} s`)

async function timed<Result>(what: string, work: () => Promise<Result>): Promise<Result> {
  const beganMs = performance.now()
  const result = await work()
  tell(what, performance.now() - beganMs)
  return result
}

async function expectUntouched(name: string): Promise<void> {
  const runs = await fleet.runs(name)
  expect(runs.map(run => [run.host, run.goneMs])).toEqual([['mac-1', undefined]])
}

describe('a fleet that lost its majority', { concurrent: false }, () => {
  test('lets guests run on, tells what it knew and what is wrong, changes nothing', async () => {
    await fleet.place('mac-1', 'mac-1', 'stays', { onHostLoss: 'Wait' })
    await fleet.place('mac-1', 'mac-3', 'waits', { onHostLoss: 'Wait' })
    await fleet.place('mac-1', 'mac-1', 'moves', { onHostLoss: 'Replace' })
    for (const name of ['stays', 'waits', 'moves']) {
      await rack.untilMachine('mac-1', name, isRunning)
    }
    await Promise.all(['mac-2', 'mac-3'].map(name => rack.host(name).powerOff()))
    const lostMs = performance.now()
    const read = await timed('get vms', () => rack.macfleet('mac-1', 'get', 'vms'))
    expect(read).toMatchObject({ code: 0, stdout: expect.stringMatching(/stays +Running/) })
    expect(read.stderr).toMatch(
      /warning: The store can't be reached since .* nothing can be changed/,
    )
    const written = await timed('run', () => rack.macfleet('mac-1', 'run', 'micro', '--name', 'no'))
    expect(written.code).not.toBe(0)
    expect(written.stderr).toContain('store')
    const status = await timed('cluster status', () => rack.macfleet('mac-1', 'cluster', 'status'))
    expect(status).toMatchObject({ code: 0, stdout: expect.stringContaining('Bring back hosts') })
    expect(status.stdout).toMatch(/hold the store mac-2, mac-3 are silent/)
    // What may be replaced ends when its lease may have: others could have acted on it.
    await until('the one that may be replaced has ended', async () =>
      (await fleet.runs('moves')).some(run => run.goneMs !== undefined) ? true : undefined,
    )
    tell('it ended after', performance.now() - lostMs)
    await expectUntouched('stays')
  })

  test('goes on by itself when its hosts are back', async () => {
    const beganMs = performance.now()
    await Promise.all(['mac-2', 'mac-3'].map(name => rack.host(name).powerOn()))
    for (const name of ['stays', 'waits', 'moves']) {
      await rack.untilMachine('mac-2', name, isRunning)
    }
    tell('all run again after', performance.now() - beganMs)
    await expectUntouched('stays')
    expect((await rack.macfleet('mac-1', 'get', 'vms')).stderr).toBe('')
    expect(await fleet.overlaps()).toEqual([])
  })

  test('comes back by itself after a power-off of all', async () => {
    await Promise.all(rack.hosts.map(host => host.powerOff()))
    const beganMs = performance.now()
    await Promise.all(rack.hosts.map(host => host.powerOn()))
    await fleet.untilVoters('mac-1', 3)
    for (const name of ['stays', 'waits', 'moves']) {
      await rack.untilMachine('mac-3', name, isRunning)
    }
    tell('all run again after', performance.now() - beganMs)
    expect((await fleet.runs('waits')).at(-1)?.host).toBe('mac-3')
    expect((await fleet.runs('stays')).at(-1)?.host).toBe('mac-1')
    expect(await fleet.overlaps()).toEqual([])
  })
})
