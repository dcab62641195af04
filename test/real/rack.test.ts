import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readdirSync } from 'node:fs'
import { connect } from 'node:net'
import { basename, join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { removeLeftovers } from '../../agent/dev/fleet.ts'
import { checkout, isReady } from '../../agent/dev/local-host.ts'
import { namespaceFolder, processesIn } from '../../agent/dev/processes.ts'
import { runCommand } from '../../base/command.ts'
import { identify, isAlive } from '../../base/process-identity.ts'
import { type GuestRun, overlaps } from '../cluster/guest-watcher.ts'
import { type Probe, startProbe } from '../cluster/probe.ts'
import { createTestRack, devComponents, type TestRack } from '../cluster/rack.ts'
import { until } from '../support/host.ts'

let rack: TestRack
let probes: Record<string, Probe>
beforeAll(async () => {
  rack = await createTestRack({ hosts: 3, racks: 2 })
  await rack.start()
  const started = rack.hosts.map(async host => [host.name, await startProbe(host)] as const)
  probes = Object.fromEntries(await Promise.all(started))
})
afterEach(() => rack?.links.heal())
afterAll(() => rack?.remove())

const probe = (name: string): Probe => {
  const found = probes[name]
  if (found === undefined) throw new Error(`no probe in ${name}`)
  return found
}

/** Whether a host gets an answer of another one. Patient, because this machine may be busy. */
const reaches = async (from: string, to: string, timeoutMs = 5000): Promise<boolean> =>
  (await probe(from).fetch(rack.host(to).address, 1, timeoutMs)) !== undefined
/** Whether it gets none for a while in which it would, were the link there. */
const isCutOff = async (from: string, to: string): Promise<boolean> =>
  !(await reaches(from, to, 300))

/** Whether a port answers from where this test and the user are. */
function answers(port: number, address: string): Promise<boolean> {
  return new Promise(resolve => {
    const socket = connect({ port, host: address, timeout: 2000 })
    const end = (answer: boolean) => {
      socket.destroy()
      resolve(answer)
    }
    socket.on('connect', () => end(true))
    socket.on('error', () => end(false))
    socket.on('timeout', () => end(false))
  })
}

async function routes(): Promise<string> {
  return (await runCommand('ip', ['route'], { timeoutMs: 5000 })).stdout
}

describe('links', () => {
  test('join racks and lead in from outside; multicast stays in its rack', async () => {
    expect(rack.hosts.map(host => host.rack)).toEqual(['rack-1', 'rack-1', 'rack-2'])
    for (const to of ['mac-2', 'mac-3']) expect(await reaches('mac-1', to), to).toBe(true)
    expect(await answers(9000, rack.host('mac-3').address)).toBe(true)
    await probe('mac-1').call()
    const heard = until('the rack hears it', async () => {
      const from = await probe('mac-2').heard()
      return from.length > 0 ? from : undefined
    })
    expect(await heard).toEqual([rack.host('mac-1').address])
    // What is sent in its own rack afterwards arrives, so the other call would have.
    expect(await reaches('mac-1', 'mac-3')).toBe(true)
    expect(await probe('mac-3').heard()).toEqual([])
  })

  test('are cut for a host, in one direction, between two, and between racks', async () => {
    const { links } = rack
    await links.cut('mac-1')
    expect(await isCutOff('mac-1', 'mac-2')).toBe(true)
    expect(await reaches('mac-2', 'mac-3')).toBe(true)
    await links.heal('mac-1')
    expect(await reaches('mac-1', 'mac-2')).toBe(true)

    await links.cut('mac-1', 'sent')
    await probe('mac-1').call()
    await probe('mac-2').call()
    await until('the mute one hears', async () =>
      (await probe('mac-1').heard()).length > 0 ? true : undefined,
    )
    expect(await probe('mac-2').heard()).toEqual([])
    await links.heal()

    await links.cutBetween('mac-1', 'mac-2')
    expect(await isCutOff('mac-1', 'mac-2')).toBe(true)
    expect(await reaches('mac-1', 'mac-3')).toBe(true)
    await links.heal('mac-2')
    await links.cutBetween('mac-1', 'mac-3')
    expect(await isCutOff('mac-1', 'mac-3')).toBe(true)
    expect(await reaches('mac-2', 'mac-3')).toBe(true)
    await links.heal()
    await links.cutBetween('rack-1', 'rack-2')
    expect(await isCutOff('mac-2', 'mac-3')).toBe(true)
    expect(await reaches('mac-1', 'mac-2')).toBe(true)
    await links.heal()
    expect(await reaches('mac-2', 'mac-3')).toBe(true)
  })

  test('are slowed to a rate, and healed', async () => {
    const bytes = 1_000_000
    const { address } = rack.host('mac-3')
    await rack.links.slow('mac-3', 20)
    const slowMs = (await probe('mac-1').fetch(address, bytes, 5000)) ?? 0
    // 8 Mbit less what the bucket holds; more when the machine is busy.
    expect(slowMs).toBeGreaterThan(350)
    await rack.links.heal()
    await until('it is fast again', async () => {
      const healedMs = await probe('mac-1').fetch(address, bytes, 5000)
      return healedMs !== undefined && healedMs < slowMs / 2 ? true : undefined
    })
  })
})

describe('hosts', () => {
  test('are frozen and killed part by part', async () => {
    const host = rack.host('mac-2')
    const roles = host.processes().map(found => found.role)
    expect(roles.sort()).toEqual(['daemon', 'guardian', 'other'])
    expect(host.freeze('daemon')).toBe(1)
    const answer = isReady(host.socket)
    const frozen = new Promise(resolve => setTimeout(() => resolve('frozen'), 300))
    expect(await Promise.race([answer, frozen])).toBe('frozen')
    expect(host.thaw('daemon')).toBe(1)
    expect(await answer).toBe(true)
    expect(await host.kill('daemon')).toBe(1)
    expect(await isReady(host.socket)).toBe(false)
    await host.start()
    expect(await isReady(host.socket)).toBe(true)
    expect(host.processes('guardian')).toHaveLength(1)
  })

  test('lose their power with all that runs, and a watcher outside sees guests end', async () => {
    const host = rack.host('mac-1')
    const watcher = await rack.watch()
    const micro = join(checkout, '.macfleet/guests/micro.raw')
    await rack.must('mac-1', 'image', 'import', micro, '--name', 'micro')
    const small = ['--memory', '128Mi', '--cpu', '100m', '--restart-policy', 'Always']
    await rack.must('mac-1', 'run', 'micro', '--name', 'one', ...small)
    const { status } = await rack.untilMachine('mac-1', 'one', at => at.status?.phase === 'Running')
    const forward = status?.ports?.[0]
    expect(await answers(forward?.hostPort ?? 0, host.address)).toBe(true)
    const before = host.processes()
    expect(before.map(found => found.role)).toContain('guest')

    await host.powerOff()
    expect(before.filter(isAlive)).toEqual([])
    expect(await isCutOff('mac-2', 'mac-1')).toBe(true)
    const [first] = (await watcher.timeline()).runs
    expect(first).toMatchObject({ name: 'default/one', host: 'mac-1', goneMs: expect.any(Number) })

    await host.powerOn()
    const runs = await until('it runs again', async () => {
      const { runs } = await watcher.timeline()
      return runs.length > 1 ? runs : undefined
    })
    expect(runs.map(run => run.uid)).toEqual([first?.uid, first?.uid])
    expect(overlaps(runs)).toEqual([])
    // Nobody has to forget first how it was reached before.
    probes['mac-1'] = await startProbe(host)
    expect(await reaches('mac-2', 'mac-1')).toBe(true)
    expect(await reaches('mac-2', 'mac-3')).toBe(true)
  })
})

test('runs that are not proven apart are told', () => {
  const run = { uid: 'u', name: 'n', pid: 1, startTicks: 1, lastSeenMs: 90 }
  const first: GuestRun = { ...run, host: 'mac-1', startedMs: 10, goneMs: 100 }
  const at = (startedMs: number, host: string): GuestRun => ({ ...run, host, startedMs })
  expect(overlaps([first, at(99, 'mac-2')])).toHaveLength(1)
  expect(overlaps([first, at(100, 'mac-2')])).toHaveLength(0)
  expect(overlaps([first, at(89, 'mac-1')])).toHaveLength(1)
  expect(overlaps([first, at(91, 'mac-1')])).toHaveLength(0)
  expect(overlaps([first, { ...at(50, 'mac-2'), uid: 'other' }])).toHaveLength(0)
})

describe('nothing is left', () => {
  test('of one of two networks that were there at once', async () => {
    const other = await createTestRack({ hosts: 1 })
    try {
      await other.start()
      expect(other.subnet).not.toBe(rack.subnet)
      expect(await isReady(other.host('mac-1').socket)).toBe(true)
      const processes = other.host('mac-1').processes()
      expect(processes).toHaveLength(2)
      await other.remove()
      await expectGone(other, processes)
    } finally {
      await other.remove()
    }
    expect(await reaches('mac-2', 'mac-3')).toBe(true)
  })

  test('of what a maker that was killed had made', async () => {
    const module = join(checkout, 'test/cluster/rack.ts')
    const program = `
      import { createTestRack } from ${JSON.stringify(module)}
      const rack = await createTestRack({ hosts: 1 })
      await rack.start()
      const { namespace, name } = rack.hosts[0]
      const left = { folder: rack.folder, subnet: rack.subnet, hosts: [{ namespace, name }] }
      console.log(JSON.stringify({ ...left, processes: rack.hosts[0].processes() }))
      setInterval(() => {}, 1000)`
    const args = ['--input-type=module', '-e', program]
    const maker = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] })
    const text = await new Promise<string>((resolve, reject) => {
      maker.stdout.once('data', resolve)
      maker.once('exit', code => reject(new Error(`the maker ended with ${code}`)))
    })
    const left = JSON.parse(String(text))
    expect(left.processes.filter(isAlive)).toHaveLength(2)
    maker.kill('SIGKILL')
    await until('the maker is gone', () => (identify(maker.pid ?? 0) ? undefined : true))
    await removeLeftovers(devComponents)
    await expectGone(left, left.processes)
    expect(await reaches('mac-2', 'mac-3')).toBe(true)
  })
})

test('macfleet dev runs hosts until it is interrupted, and leaves nothing', async () => {
  const words = ['dev', '--hosts', '2', '--racks', '2', '--separate']
  const dev = spawn(join(checkout, 'bin/macfleet'), words, { stdio: ['ignore', 'pipe', 'inherit'] })
  const ended = once(dev, 'exit')
  let said = ''
  dev.stdout.on('data', text => {
    said += text
  })
  await until('it is up', () => (said.includes('Ctrl-C') ? true : undefined))
  const rows = [...said.matchAll(/^(mac-\d) +(rack-\d) +(\S+) +(\S+)\/mac-\d\/run\/\S+$/gm)]
  expect(rows.map(row => `${row[1]} ${row[2]}`)).toEqual(['mac-1 rack-1', 'mac-2 rack-2'])
  const folder = rows[0]?.[4] ?? ''
  const subnet = (rows[0]?.[3] ?? '').replace(/\.1\.1$/, '.0.0/16')
  const namespace = `${basename(folder)}-mac-1`
  const processes = processesIn(namespace)
  expect(processes.map(found => found.role).sort()).toEqual(['daemon', 'guardian'])
  expect(await routes()).toContain(subnet)
  dev.kill('SIGINT')
  expect(await ended).toEqual([0, null])
  await expectGone({ folder, subnet, hosts: [{ namespace }] }, processes)
})

async function expectGone(
  {
    folder,
    subnet,
    hosts,
  }: { folder: string; subnet: string; hosts: readonly { namespace: string }[] },
  processes: { pid: number; startTicks: number }[],
): Promise<void> {
  expect(processes.filter(isAlive)).toEqual([])
  expect(existsSync(folder)).toBe(false)
  const prefix = hosts[0]?.namespace.replace(/-mac-1$/, '') ?? ''
  expect(readdirSync(namespaceFolder).filter(name => name.startsWith(prefix))).toEqual([])
  expect(await routes()).not.toContain(subnet)
}
