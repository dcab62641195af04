import { spawn } from 'node:child_process'
import { mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createDevFleet, removeLeftovers } from '../agent/dev/fleet.ts'
import { devSettings } from '../agent/dev/settings.ts'
import { sleep, systemClock } from '../base/clock.ts'
import { runCommand } from '../base/command.ts'
import { assert } from '../base/errors.ts'
import { identify, isAlive, type ProcessIdentity, signalProcess } from '../base/process-identity.ts'
import { systemRandom } from '../base/random.ts'
import { bringBack, type StoryEnd, tellStory } from './fleet-story.ts'

/** What was asked for. */
export interface FleetOptions {
  hosts: number
  /** The fleet is left running. */
  keep: boolean
  /** Where it is written down who runs a fleet. */
  folder: string
}

const components = { run: runCommand, clock: systemClock, random: systemRandom }
const endings = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const
const interrupted = 130
const lookMs = 200
const stopMs = 60_000

const say = (line: string): void => void process.stderr.write(`==> ${line}\n`)
const show = (text: string): void => void process.stdout.write(text)

/**
 * Shows a fleet that loses a host, on hosts of this machine.
 * @returns the exit code
 * @throws devNeedsRoot, devFailed, Error with what did not come about
 */
export async function showFleet(options: FleetOptions): Promise<number> {
  const isChild = process.send !== undefined
  return options.keep && !isChild ? await showDetached() : await showHere(options)
}

async function showHere({ hosts, keep, folder }: FleetOptions): Promise<number> {
  const stopping = new AbortController()
  const { signal } = stopping
  for (const ending of endings) process.on(ending, () => stopping.abort())
  // Whoever watched is gone before there was something to keep.
  const onDisconnect = () => stopping.abort()
  process.on('disconnect', onDisconnect)
  const forget = record(folder)
  const fleet = await createDevFleet({ hosts, racks: 1, settings: devSettings(hosts) }, components)
  try {
    const stopped = new Promise<undefined>(resolve => {
      if (signal.aborted) resolve(undefined)
      signal.addEventListener('abort', () => resolve(undefined))
    })
    const story = playStory({ fleet, signal, say, show }, keep)
    story.catch(() => {})
    const end = await Promise.race([story, stopped])
    if (end === undefined) return interrupted
    if (!keep) {
      process.stderr.write(`${farewell(hosts)}\n`)
      return 0
    }
    process.off('disconnect', onDisconnect)
    process.send?.(invitation(end))
    await stopped
    return 0
  } finally {
    await fleet.remove()
    forget()
  }
}

async function playStory(init: Parameters<typeof tellStory>[0], keep: boolean): Promise<StoryEnd> {
  const end = await tellStory(init)
  if (keep) {
    say(`switching ${end.lost.name} on again`)
    await bringBack(end)
  }
  return end
}

function farewell(hosts: number): string {
  const line = (command: string, meaning: string) => `  ${command.padEnd(40)} ${meaning}`
  return [
    '',
    'That was a whole fleet on this machine; nothing of it stays. To go on:',
    line(`script/quickstart --hosts ${hosts} --keep`, 'the same, and it stays'),
    line('bin/macfleet dev --hosts 6 --racks 2', 'an empty fleet, until Ctrl-C'),
    line('docs/ARCHITECTURE.md', 'what happens at each point if a host dies'),
  ].join('\n')
}

function invitation({ host }: StoryEnd): string {
  const line = (command: string, meaning: string) => `  ${command.padEnd(36)} ${meaning}`
  return [
    '',
    'The fleet goes on. Any host answers for all of it:',
    `  export MACFLEET_SOCKET=${host.socket}`,
    line('bin/macfleet cluster status', 'the hosts, and who leads'),
    line('bin/macfleet get vms -o wide', 'what runs where'),
    line('bin/macfleet explain vm vm-1', 'why there'),
    line('bin/macfleet ssh vm-1', 'a shell in it, wherever it is'),
    line('script/quickstart --stop', 'ends all of it'),
  ].join('\n')
}

/** Runs this program again in a session of its own, and ends when there is a fleet to go on with. */
async function showDetached(): Promise<number> {
  const child = spawn(process.execPath, [...process.execArgv, ...process.argv.slice(1)], {
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
  })
  assert(child.stdout && child.stderr, 'a child was given no pipes')
  child.stdout.pipe(process.stdout)
  child.stderr.pipe(process.stderr)
  for (const ending of endings) process.on(ending, () => child.kill('SIGTERM'))
  return await new Promise<number>(resolve => {
    child.once('message', text => {
      process.stderr.write(`${text}\n`)
      resolve(0)
    })
    child.once('close', code => resolve(code ?? 1))
  })
}

/** Writes down that this process runs a fleet. @returns to be called when it does no more */
function record(folder: string): () => void {
  const own = identify(process.pid)
  assert(own !== undefined, 'this process runs')
  mkdirSync(fleetsIn(folder), { recursive: true })
  const file = join(fleetsIn(folder), `${own.pid}-${own.startTicks}`)
  writeFileSync(file, '')
  return () => rmSync(file, { force: true })
}

const fleetsIn = (folder: string): string => join(folder, 'fleets')

function recorded(folder: string): ProcessIdentity[] {
  let names: string[]
  try {
    names = readdirSync(fleetsIn(folder))
  } catch {
    return []
  }
  return names.flatMap(name => {
    const [pid, startTicks] = name.split('-').map(Number)
    return pid && startTicks ? [{ pid, startTicks }] : []
  })
}

/** Ends the fleets that were started here. @throws Error when one does not end, or is not ours */
export async function stopFleets(folder: string): Promise<void> {
  const owners = recorded(folder)
  const running = owners.filter(isAlive)
  if (running.length > 0) say('ending the fleet')
  for (const owner of running) {
    if (!signalProcess(owner, 'SIGTERM') && isAlive(owner)) {
      throw new Error('root started the fleet, and root has to end it')
    }
  }
  const deadlineMs = systemClock.monotonicMs() + stopMs
  while (running.some(isAlive) && systemClock.monotonicMs() < deadlineMs) {
    await sleep(systemClock, lookMs)
  }
  for (const owner of running) signalProcess(owner, 'SIGKILL')
  while (running.some(isAlive)) await sleep(systemClock, lookMs)
  // What was killed left its hosts behind.
  if (owners.length > 0) await removeLeftovers(components)
  for (const { pid, startTicks } of owners) {
    rmSync(join(fleetsIn(folder), `${pid}-${startTicks}`), { force: true })
  }
}
