import { cpSync, mkdtempSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { createSeededRandom } from '../../base/random.ts'
import type { Host } from '../../resources/host.ts'
import type { Image } from '../../resources/image.ts'
import type { VirtualMachine } from '../../resources/virtual-machine.ts'
import {
  drawFaults,
  type FaultRecord,
  healAll,
  injectFaults,
  tellFault,
} from '../cluster/faults.ts'
import { createTestFleet, type TestFleet } from '../cluster/fleet.ts'
import { type Load, type Ordered, promised, startLoad } from '../cluster/load.ts'
import type { TestRack } from '../cluster/rack.ts'
import { complaintsOf, type HostTraces, readPlacements, readTraces } from '../cluster/traces.ts'
import { contentOf, until } from '../support/host.ts'

/**
 * `script/test --long` lets a hundred faults happen to five hosts; everyday runs let a few happen
 * to three. MACFLEET_TEST_SEED repeats the draw, MACFLEET_TEST_FAULTS says how many.
 */
const isLong = process.env['MACFLEET_TEST_LONG'] !== undefined
const count = Number(process.env['MACFLEET_TEST_FAULTS'] ?? (isLong ? 100 : 5))
const hosts = Number(process.env['MACFLEET_TEST_HOSTS'] ?? (isLong ? 5 : 3))
const seed = Number(process.env['MACFLEET_TEST_SEED'] ?? Date.now() % 1_000_000)
/** Within this time of the last fault all has to be as it was promised. */
const settledMs = 240_000
const memoryBytes = 128 * 2 ** 20

let rack: TestRack
let fleet: TestFleet
const faults: FaultRecord[] = []
const says = (text: string) => console.info(text)

describe('a fleet', () => {
  beforeAll(async () => {
    fleet = await createTestFleet({ hosts, racks: 2 }, made => {
      rack = made
    })
    await fleet.untilVoters('mac-1', 3)
  }, 300_000)
  afterAll(() => rack?.remove())

  test(
    `${count} random faults lose and double no machine, and leave nothing (seed ${seed})`,
    async () => {
      const random = createSeededRandom(seed)
      const names = rack.hosts.map(({ name }) => name)
      const plan = {
        count,
        hosts: names,
        racks: ['rack-1', 'rack-2'],
        mostMs: isLong ? 25_000 : 6_000,
      }
      const drawn = drawFaults(plan, random)
      const amount = isLong ? { most: 6, pauseMs: 2_500 } : { most: 3, pauseMs: 1_500 }
      const load = startLoad(amount, fleet, createSeededRandom(seed + 1))
      try {
        await injectFaults(drawn, rack, record => faults.push(record))
        if (isLong) says(faults.map(tellFault).join('\n'))
        await load.stop()
        await healAll(rack)
        await load.settle()
        await settled(load)
        says(
          `seed ${seed}: ${load.ordered.length} machines were asked for, ${promised(load).length} are left`,
        )
        await untilNothing('complaints after the last was deleted', async () => {
          await deleteAll(load)
          return await complaints(load)
        })
      } catch (error) {
        await load.stop().catch(() => {})
        throw new Error(await story(load, error), { cause: error })
      }
    },
    300_000 + settledMs * 2 + count * 20_000,
  )
})

test('whatever is not as it has to be is complained of', () => {
  const uid = '00000000-0000-4000-8000-000000000000'
  const nothing: HostTraces = {
    ...{ host: 'mac-1', guests: [], daemons: 1, guardians: 1, etcds: 1, others: [], folders: [] },
    ...{ sockets: [], guarded: [], imageUses: [0], ports: [], forwards: [], users: [] },
    tables: ['table inet macfleet_1'],
  }
  const port = { ports: [20_000], forwards: [20_000] }
  const files = { folders: [uid], sockets: ['000000000000'], guarded: [uid], users: [1_000] }
  const running: HostTraces = { ...nothing, ...port, ...files, guests: [uid], imageUses: [1] }
  const other = { ...running, host: 'mac-2', etcds: 0 }
  const complaints = (...all: HostTraces[]) => complaintsOf(all, [uid], 1)
  expect(complaints(running)).toEqual([])
  expect(complaintsOf([nothing], [], 1)).toEqual([])
  expect(complaints(nothing)).toEqual([`${uid} runs 0 times`])
  expect(complaints(running, other)).toContain(`${uid} runs 2 times`)
  expect(complaintsOf([running], [], 1).join()).toContain('guests')
  expect(complaintsOf([nothing], [], 3)).toEqual(['1 etcd processes run, not 3'])
  const wrong: Partial<HostTraces>[] = [
    ...[{ daemons: 0 }, { guardians: 2 }, { others: ['qemu-img'] }, { folders: [] }],
    ...[{ sockets: [] }, { guarded: [] }, { imageUses: [2] }, { ports: [] }, { forwards: [] }],
    ...[{ users: [] }, { tables: [] }, { folders: [uid, uid] }, { ports: [20_000, 20_001] }],
  ]
  for (const one of wrong) {
    expect(complaints({ ...running, ...one }), JSON.stringify(one)).not.toEqual([])
  }
})

test('a seed draws the same faults again', () => {
  const plan = { count: 50, hosts: ['a', 'b', 'c'], racks: ['1', '2'], mostMs: 9_000 }
  const draw = (seed: number) => drawFaults(plan, createSeededRandom(seed))
  expect(draw(1)).toEqual(draw(1))
  expect(draw(1)).not.toEqual(draw(2))
  const kinds = new Set(draw(1).map(({ kind }) => kind))
  expect(kinds.size).toBe(7)
})

/** Waits until nothing is to be complained of. @throws Error with what is */
async function untilNothing(what: string, look: () => Promise<string[]>): Promise<void> {
  let last: string[] = []
  const attempt = async () => {
    last = await look().catch(error => [String(error)])
    if (last.length === 0) return true
    await delay(1_000)
    return undefined
  }
  await until(what, attempt, settledMs).catch(error => {
    throw new Error(`${error.message}:\n${last.join('\n')}`)
  })
}

async function settled(load: Load): Promise<void> {
  const beganMs = performance.now()
  await untilNothing('complaints after the faults', () => complaints(load))
  says(
    `all was as promised ${((performance.now() - beganMs) / 1000).toFixed(1)} s after the faults`,
  )
  const { runs, longestGapMs } = await fleet.watcher.timeline()
  says(`${runs.length} lives of guests were seen, at most ${longestGapMs.toFixed(0)} ms unwatched`)
  expect(await fleet.overlaps()).toEqual([])
}

async function deleteAll(load: Load): Promise<void> {
  for (const one of promised(load)) {
    await fleet.remove('mac-1', one.name)
    one.remove = 'acknowledged'
  }
}

/** What the hosts have, held against what the users were promised; the fleet's own word comes last. */
async function complaints(load: Load): Promise<string[]> {
  const machines = promised(load)
  const uids = machines.map(({ uid }) => uid ?? '')
  const all = await Promise.all(rack.hosts.map(readTraces))
  const found = complaintsOf(all, uids, Math.min(3, hosts))
  if (found.length > 0) return found
  const voter = rack.hosts.find(host => host.processes('etcd').length > 0)
  const placements = voter === undefined ? [] : await readPlacements(voter)
  const say = (what: string, is: unknown, shouldBe: unknown) => {
    const [one, other] = [JSON.stringify(is), JSON.stringify(shouldBe)]
    if (one !== other) found.push(`${what}: ${one}, not ${other}`)
  }
  say('placements', placements, uids.toSorted())
  for (const { host, guests } of all) {
    const { items } = await rack.read<{ items: VirtualMachine[] }>(host, machinesPath)
    const told = items.map(
      ({ metadata, status }) => `${metadata.name} ${metadata.uid} ${status?.phase}`,
    )
    const wanted = machines.map(({ name, uid }) => `${name} ${uid} Running`)
    say(`machines, as ${host} tells`, told.sort(), wanted.sort())
    const { status } = await rack.read<Host>(host, `/apis/macfleet.dev/v1/hosts/${host}`)
    const { cpu, memoryBytes: bytes, machines: reserved } = status?.reserved ?? {}
    const amounts = [guests.length * 0.1, guests.length * memoryBytes, guests.length]
    say(`reserved on ${host}`, [Number(cpu?.toFixed(6)), bytes, reserved], amounts.map(round))
  }
  const image = await rack.read<Image>('mac-1', imagePath)
  say('users of the image', image.status?.users?.length ?? 0, uids.length)
  return found
}

const machinesPath = '/apis/macfleet.dev/v1/namespaces/default/virtualmachines'
const imagePath = '/apis/macfleet.dev/v1/namespaces/default/images/micro'
const round = (value: number) => Number(value.toFixed(6))

/** Everything that is needed to find out why. */
async function story(load: Load, error: unknown): Promise<string> {
  const text = error instanceof Error ? error.message : String(error)
  const kept = mkdtempSync(join(tmpdir(), `fleet-chaos-${seed}-`))
  // Sockets, disks and keys are not for keeping.
  cpSync(rack.folder, kept, { recursive: true, filter: path => isStory(path) })
  const { runs } = await fleet.watcher.timeline().catch(() => ({ runs: [] }))
  const concerns = (one: Ordered) =>
    text.includes(one.name) || (one.uid !== undefined && text.includes(one.uid))
  const concerned = load.ordered.filter(concerns)
  const lives = runs
    .filter(run => concerned.some(({ uid }) => uid === run.uid))
    .map(run => JSON.stringify(run))
  const events = await Promise.all(concerned.map(eventsOf))
  const logs = rack.hosts
    .filter(({ name }) => text.includes(name) || concerned.length === 0)
    .map(host => `--- ${host.name}\n${contentOf(host.log).split('\n').slice(-25).join('\n')}`)
  return [
    `${text}`,
    `seed ${seed}, ${count} faults, ${hosts} hosts; logs and records are in ${kept}`,
    ...['', 'Faults:', ...faults.map(tellFault)],
    ...concerned.flatMap((one, at) => [
      ...['', `Machine ${one.name} ${one.uid ?? ''} (${one.onHostLoss}):`],
      ...[...one.story, ...(events[at] ?? [])].sort(),
    ]),
    ...['', 'Lives of guests, in ms since boot:', ...lives],
    ...logs,
  ].join('\n')
}

interface Told {
  items: {
    lastTimestamp?: string
    reason?: string
    message?: string
    involvedObject: { name?: string }
  }[]
}

async function eventsOf({ name }: Ordered): Promise<string[]> {
  const path = '/api/v1/namespaces/default/events'
  const { items } = await rack.read<Told>('mac-1', path).catch(() => ({ items: [] }))
  return items
    .filter(({ involvedObject }) => involvedObject.name === name)
    .map(({ lastTimestamp, reason, message }) => `${lastTimestamp} ${reason}: ${message}`)
}

const keptBytesMost = 8 * 2 ** 20

function isStory(path: string): boolean {
  const stats = statSync(path, { throwIfNoEntry: false })
  if (stats === undefined || /\.(key|pem)$|\/(fleet|cache|access|ballast)$/.test(path)) return false
  return stats.isDirectory() || (stats.isFile() && stats.size < keptBytesMost)
}
