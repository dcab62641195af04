import { statSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { createToken } from '../../agent/dev/form.ts'
import type { DevHost } from '../../agent/dev/host.ts'
import { guestFolder } from '../../kvm/guest-folder.ts'
import { findCondition } from '../../resources/condition.ts'
import type { Host } from '../../resources/host.ts'
import type { VirtualMachine } from '../../resources/virtual-machine.ts'
import { createTestFleet, type TestFleet } from '../cluster/fleet.ts'
import type { TestRack } from '../cluster/rack.ts'
import { until } from '../support/host.ts'

let rack: TestRack
let fleet: TestFleet
beforeAll(async () => {
  fleet = await createTestFleet({ hosts: 3, racks: 2 }, made => {
    rack = made
  })
})
afterAll(() => rack?.remove())

const isRunning = ({ status }: VirtualMachine) => status?.phase === 'Running'
const isOn = (host: string) => (machine: VirtualMachine) => machine.status?.host === host
const hasHost = ({ status }: VirtualMachine) => status?.host !== undefined
const diskOf = ({ dataDir, runDir }: DevHost, { metadata }: VirtualMachine): number => {
  const roots = { dataRoot: join(dataDir, 'guests'), runRoot: join(runDir, 'guests') }
  return statSync(guestFolder(roots, metadata.uid ?? '').disk).ino
}
const isHostReady = ({ status }: Host) =>
  findCondition(status?.conditions, 'Ready')?.status === 'True'
/** Measured on a machine that does other things too: printed, and bound generously. */
const tell = (what: string, ms: number) => console.info(`${what}: ${(ms / 1000).toFixed(1)} s`)

describe('a fleet in two racks', { concurrent: false }, () => {
  test('spreads machines over its hosts, and any host tells of all', async () => {
    const names = ['vm-1', 'vm-2', 'vm-3', 'vm-4', 'vm-5', 'vm-6']
    for (const name of names) await fleet.create('mac-1', name, { onHostLoss: 'Replace' })
    const placed: VirtualMachine[] = []
    for (const name of names) placed.push(await rack.untilMachine('mac-3', name, isRunning))
    for (const { name } of rack.hosts) expect(placed.some(isOn(name)), name).toBe(true)
  })

  test('takes in a host that has nothing but a token, and gives it a machine', async () => {
    await fleet.untilVoters('mac-1', 3)
    const host = await rack.addHost(2, { labels: { 'test-name': 'mac-4' } })
    host.leaveToken(await createToken(rack.host('mac-1'), [host]))
    const beganMs = performance.now()
    const starting = host.start()
    await until('it is Ready', async () => {
      const answer = rack.read<Host>('mac-1', '/apis/macfleet.dev/v1/hosts/mac-4')
      return (await answer.then(isHostReady, () => false)) ? true : undefined
    })
    tell('a new host was Ready after', performance.now() - beganMs)
    await starting
    await fleet.importMicro('mac-4')
    await fleet.create('mac-1', 'newcomer', { on: 'mac-4', onHostLoss: 'Replace' })
    await rack.untilMachine('mac-1', 'newcomer', isOn('mac-4'))
    const tookMs = performance.now() - beganMs
    tell('and was given the image and a machine after', tookMs)
    expect(tookMs).toBeLessThan(30_000)
    await rack.untilMachine('mac-1', 'newcomer', isRunning)
    await fleet.remove('mac-1', 'newcomer')
  })

  test('places machines soon after the leader was killed', async () => {
    const old = await fleet.leader('mac-4')
    const other = old === 'mac-1' ? 'mac-2' : 'mac-1'
    await rack.host(old).kill('daemon')
    const killedMs = performance.now()
    await fleet.create(other, 'after', { onHostLoss: 'Replace' })
    await rack.untilMachine(other, 'after', hasHost)
    const tookMs = performance.now() - killedMs
    tell('a machine was placed after the kill of the leader after', tookMs)
    expect(tookMs).toBeLessThan(20_000)
    expect(await fleet.leader(other, name => name !== old)).not.toBe(old)
    await rack.host(old).start()
    await fleet.remove(other, 'after')
  })

  test('starts elsewhere what may be replaced, and waits for what has its disk there', async () => {
    const lost = rack.host('mac-3')
    await fleet.create('mac-1', 'waits', { on: 'mac-3' })
    const before = await rack.untilMachine('mac-1', 'waits', isRunning)
    const disk = diskOf(lost, before)
    const name = await nameOfOneOn('mac-3')
    await lost.powerOff()
    const offMs = performance.now()
    const isElsewhere = (machine: VirtualMachine) => !isOn('mac-3')(machine) && isRunning(machine)
    await rack.untilMachine('mac-1', name, isElsewhere)
    tell('a machine runs elsewhere after', performance.now() - offMs)
    expect((await fleet.runs(name)).at(-1)?.host).not.toBe('mac-3')
    const isUnknown = ({ status }: VirtualMachine) => status?.phase === 'Unknown'
    await rack.untilMachine('mac-1', 'waits', isUnknown)
    await lost.powerOn()
    const after = await rack.untilMachine('mac-1', 'waits', isRunning)
    expect(after.status?.host).toBe('mac-3')
    expect(diskOf(lost, after)).toBe(disk)
    expect(await fleet.overlaps()).toEqual([])
  })

  test('keeps machines off a cordoned host, and empties one that is drained', async () => {
    await fleet.untilVoters('mac-1', 3)
    await rack.must('mac-2', 'host', 'cordon', 'mac-3')
    await fleet.create('mac-1', 'kept-off', { on: 'mac-3', onHostLoss: 'Replace' })
    const waits = (machine: VirtualMachine) =>
      findCondition(machine.status?.conditions, 'Scheduled')?.status === 'False'
    await rack.untilMachine('mac-1', 'kept-off', waits)
    await rack.must('mac-2', 'host', 'uncordon', 'mac-3')
    await rack.untilMachine('mac-1', 'kept-off', isRunning)
    const soon = { terminationGracePeriodSeconds: 2 }
    await fleet.place('mac-1', 'mac-3', 'moves', { onHostLoss: 'Replace', ...soon })
    await rack.untilMachine('mac-1', 'moves', isRunning)
    const drained = rack.macfleet('mac-1', 'host', 'drain', 'mac-3', '--timeout', '60s')
    await rack.untilMachine('mac-1', 'moves', at => !isOn('mac-3')(at) && isRunning(at))
    // The one that has its disk there goes on, and is waited for; the pinned one has nowhere to go.
    expect((await fleet.machine('mac-1', 'waits')).status).toMatchObject({ phase: 'Running' })
    await fleet.remove('mac-1', 'kept-off')
    await rack.must('mac-2', 'stop', 'waits')
    expect(await drained).toMatchObject({ code: 0 })
    await rack.must('mac-2', 'host', 'uncordon', 'mac-3')
    await rack.must('mac-2', 'start', 'waits')
    await rack.untilMachine('mac-1', 'waits', at => isRunning(at) && isOn('mac-3')(at))
  })

  test('lets guests run on while every daemon is restarted in turn', async () => {
    const guests = () => rack.hosts.flatMap(host => host.processes('guest').map(({ pid }) => pid))
    const before = guests()
    expect(before.length).toBeGreaterThan(2)
    for (const [index, host] of rack.hosts.entries()) {
      if (index % 2 === 0) await host.stop()
      else await host.kill('daemon')
      await host.start()
    }
    for (const name of ['vm-1', 'moves', 'waits']) {
      await rack.untilMachine('mac-4', name, isRunning)
    }
    expect(guests()).toEqual(before)
    expect(await fleet.overlaps()).toEqual([])
  })
})

/** One of the machines that the first test has left, on a host. */
async function nameOfOneOn(host: string): Promise<string> {
  const { items } = await rack.read<{ items: VirtualMachine[] }>('mac-1', fleet.machinesPath)
  const found = items.find(at => isOn(host)(at) && at.metadata.name.startsWith('vm-'))
  if (found === undefined) throw new Error(`no machine is on ${host}`)
  return found.metadata.name
}
