import { join } from 'node:path'
import type { DevFleet } from '../agent/dev/fleet.ts'
import { formFleet, untilReady } from '../agent/dev/form.ts'
import type { DevHost } from '../agent/dev/host.ts'
import { checkout } from '../agent/dev/local-host.ts'
import { sleep, systemClock } from '../base/clock.ts'
import { runCommand } from '../base/command.ts'
import { messageOf } from '../base/errors.ts'
import { defaultLimits } from '../base/limits.ts'
import type { FleetStatus } from '../interface/api/fleet-operations.ts'
import { createApiClient } from '../interface/cli/api-client.ts'
import { findCondition } from '../resources/condition.ts'
import type { VirtualMachine } from '../resources/virtual-machine.ts'

/** What a story needs. */
export interface StoryInit {
  fleet: DevFleet
  /** Ends whatever is under way. */
  signal: AbortSignal
  /** Told in a line what is done next. */
  say(line: string): void
  /** Takes what the story is about: tables, and a line for each thing that happened. */
  show(text: string): void
}

/** How it ended. */
export interface StoryEnd {
  /** The host that lost its power. */
  lost: DevHost
  /** Another one, to go on with. */
  host: DevHost
}

const micro = join(checkout, '.macfleet/guests/micro.raw')
const machineNames = ['vm-1', 'vm-2', 'vm-3', 'vm-4', 'vm-5', 'vm-6']
const machinesPath = '/apis/macfleet.dev/v1/namespaces/default/virtualmachines'
/** So many hosts have to vote in etcd before one may be lost. */
const votersNeeded = 3
/** For whatever is waited for: guests are emulated, on whatever else this machine does. */
const patienceMs = 180_000
const commandMs = 120_000
const lookMs = 100

/**
 * Forms a fleet of at least three hosts, runs six machines on it, cuts the power of the host that
 * leads and waits until its machines answer elsewhere.
 * @throws devFailed, commandFailed, Error naming what was waited for in vain
 */
export async function tellStory(init: StoryInit): Promise<StoryEnd> {
  const { fleet, say, show } = init
  await makeFleet(init)
  say('running six virtual machines, with --on-host-loss Replace')
  const [first] = fleet.hosts
  if (first === undefined) throw new Error('a fleet without hosts has no story')
  const small = ['--memory', '128Mi', '--cpu', '100m', '--on-host-loss', 'Replace']
  for (const name of machineNames) {
    await macfleet(init, first, ['run', 'micro', '--name', name, ...small])
  }
  const machines = await until(init, 'all six answer', async () => {
    const { items } = await read<{ items: VirtualMachine[] }>(init, first, machinesPath)
    return items.length === machineNames.length && items.every(isReady) ? items : undefined
  })
  show(await macfleet(init, first, ['get', 'vms', '-o', 'wide']))
  const leader = await until(init, 'somebody leads', async () => {
    const status = await read<FleetStatus>(init, first, '/fleet')
    return status.leader
  })
  const lost = fleet.hosts.find(
    ({ name }) => name === leader && machinesOf(name, machines).length > 0,
  )
  return await loseHost(init, lost ?? fleet.host(machines[0]?.status?.host ?? ''), machines)
}

async function makeFleet(init: StoryInit): Promise<void> {
  const { fleet, say } = init
  const beganMs = systemClock.monotonicMs()
  say(`starting ${fleet.hosts.length} hosts on ${fleet.subnet}: a namespace and a daemon each`)
  await fleet.start()
  await formFleet(fleet.hosts, { clock: systemClock, say })
  const [first] = fleet.hosts
  if (first === undefined) return
  const voters = await until(init, 'three hosts keep the store', async () => {
    const { members } = await read<FleetStatus>(init, first, '/fleet')
    const voting = members.filter(({ voter }) => voter === 'leader' || voter === 'follower')
    return voting.length >= votersNeeded ? voting.map(({ name }) => name) : undefined
  })
  const took = seconds(systemClock.monotonicMs() - beganMs)
  say(`one fleet after ${took} s; ${inWords(voters)} keep its store`)
  say('importing the micro guest on each host')
  for (const host of fleet.hosts) {
    await macfleet(init, host, ['image', 'import', micro, '--name', 'micro'])
  }
}

/** Cuts a host's power and tells what happens, until its machines answer on other hosts. */
async function loseHost(
  init: StoryInit,
  lost: DevHost,
  machines: readonly VirtualMachine[],
): Promise<StoryEnd> {
  const { fleet, say, show } = init
  const [host] = fleet.hosts.filter(({ name }) => name !== lost.name)
  if (host === undefined) throw new Error('there is no other host')
  const names = machinesOf(lost.name, machines)
  const status = await read<FleetStatus>(init, host, '/fleet')
  const leads = status.leader === lost.name
  const keeps = status.members.some(({ name, voter }) => name === lost.name && voter === 'leader')
  const role = leads ? `leads the fleet${keeps ? ' and its store' : ''}, and runs` : 'runs'
  say(`${lost.name} ${role} ${inWords(names)}: cutting its power`)
  const others = fleet.hosts.filter(({ name }) => name !== lost.name)
  const before = guestsOn(others)
  const beganMs = systemClock.monotonicMs()
  const tell = (who: string, what: string): void => {
    const at = seconds(systemClock.monotonicMs() - beganMs).padStart(6)
    show(`  +${at} s   ${who.padEnd(6)}   ${what}\n`)
  }
  show('\n')
  tell(lost.name, `its power is cut, ${inWords(names)} with it`)
  await lost.powerOff()
  const done = new AbortController()
  const signal = AbortSignal.any([init.signal, done.signal])
  const watching = followFleet({ ...init, signal }, { host, lost: lost.name, leads, tell })
  await Promise.all(names.map(name => followMachine(init, { host, lost: lost.name, name, tell })))
  const answeredMs = systemClock.monotonicMs() - beganMs
  done.abort()
  await watching
  const after = guestsOn(others)
  if (!before.every(pid => after.includes(pid))) throw new Error('another guest ended too')
  show('\n')
  say(`all answer again after ${seconds(answeredMs)} s; the other ${before.length} never stopped`)
  show(await macfleet(init, host, ['get', 'vms', '-o', 'wide']))
  return { lost, host }
}

interface Watch {
  /** Who is asked. */
  host: DevHost
  lost: string
  tell(who: string, what: string): void
}

/** Tells when the fleet notices, and when another host leads. Ends with the signal. */
async function followFleet(init: StoryInit, watch: Watch & { leads: boolean }): Promise<void> {
  const { host, lost, tell } = watch
  let noticed = false
  let led = !watch.leads
  while (!init.signal.aborted && !(noticed && led)) {
    const status = await read<FleetStatus>(init, host, '/fleet').catch(() => undefined)
    const { leader, members = [] } = status ?? {}
    if (!led && leader !== undefined && leader !== lost) {
      led = true
      tell(leader, 'leads now')
    }
    if (!noticed && members.some(({ name, isAlive }) => name === lost && isAlive === false)) {
      noticed = true
      tell(lost, 'its lease has ended: the fleet has noticed')
    }
    await sleep(systemClock, lookMs, init.signal).catch(() => {})
  }
}

/** Tells how one machine of a lost host comes to run on another. */
async function followMachine(init: StoryInit, watch: Watch & { name: string }): Promise<void> {
  const { host, lost, name, tell } = watch
  const isElsewhere = ({ status }: VirtualMachine) =>
    status?.host !== undefined && status.host !== lost
  const runs = (machine: VirtualMachine) =>
    isElsewhere(machine) && machine.status?.bootTimings?.spawnedMs !== undefined
  const untilMachine = (what: string, isWanted: (machine: VirtualMachine) => boolean) =>
    until(init, `${name} ${what}`, async () => {
      const machine = await read<VirtualMachine>(init, host, `${machinesPath}/${name}`)
      return isWanted(machine) ? machine : undefined
    })
  const { status } = await untilMachine('is given to another host', isElsewhere)
  tell(name, `given to ${status?.host}`)
  await untilMachine('runs', runs)
  tell(name, `QEMU runs on ${status?.host}`)
  await untilMachine('answers', machine => runs(machine) && isReady(machine))
  const words = ['ssh', name, '--', 'uname', '-nr']
  const answer = await until(init, `SSH to ${name}`, () =>
    macfleet(init, host, words).catch(() => undefined),
  )
  tell(name, `answers SSH: ${answer.trim()}`)
}

/** Makes a fleet whole again. @throws devFailed, Error when the host does not start */
export async function bringBack({ host, lost }: StoryEnd): Promise<void> {
  await lost.powerOn()
  await untilReady(host, [host, lost], { clock: systemClock })
}

/** Runs the command line against a host, with the settings of whoever started us. */
async function macfleet(
  { signal }: StoryInit,
  { socket }: DevHost,
  args: readonly string[],
): Promise<string> {
  const bounds = { timeoutMs: commandMs, signal, environment: { NO_COLOR: '1' } }
  const all = ['--socket', socket, ...args]
  return (await runCommand(join(checkout, 'bin/macfleet'), all, bounds)).stdout
}

async function read<Answer>(
  { signal }: StoryInit,
  { socket }: DevHost,
  path: string,
): Promise<Answer> {
  const client = createApiClient({ socket, limits: defaultLimits }, { clock: systemClock, signal })
  try {
    return (await client.request('GET', path)) as Answer
  } finally {
    client.close()
  }
}

/** Tries until there is something. @throws Error with what was waited for, and what went wrong */
async function until<T>(
  { signal }: StoryInit,
  what: string,
  attempt: () => Promise<T | undefined>,
): Promise<T> {
  const deadlineMs = systemClock.monotonicMs() + patienceMs
  let trouble = ''
  for (;;) {
    signal.throwIfAborted()
    const found = await attempt().catch(error => {
      trouble = `: ${messageOf(error)}`
      return undefined
    })
    if (found !== undefined) return found
    if (systemClock.monotonicMs() > deadlineMs) {
      throw new Error(`not within ${patienceMs / 1000} s: ${what}${trouble}`)
    }
    await sleep(systemClock, lookMs, signal)
  }
}

function isReady({ status }: VirtualMachine): boolean {
  return findCondition(status?.conditions, 'Ready')?.status === 'True'
}

function machinesOf(host: string, machines: readonly VirtualMachine[]): string[] {
  return machines.filter(({ status }) => status?.host === host).map(({ metadata }) => metadata.name)
}

function guestsOn(hosts: readonly DevHost[]): number[] {
  return hosts.flatMap(host => host.processes('guest').map(({ pid }) => pid))
}

function seconds(ms: number): string {
  return (ms / 1000).toFixed(1)
}

function inWords(names: readonly string[]): string {
  const last = names.at(-1) ?? ''
  return names.length < 2 ? last : `${names.slice(0, -1).join(', ')} and ${last}`
}
