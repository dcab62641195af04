import { spawn } from 'node:child_process'
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { sleep, systemClock } from '../../base/clock.ts'
import { runCommand } from '../../base/command.ts'
import { MacfleetError, messageOf } from '../../base/errors.ts'
import { isAlive, signalProcess } from '../../base/process-identity.ts'
import { systemRandom } from '../../base/random.ts'
import { createDevFleet, type DevFleet, removeLeftovers } from './fleet.ts'
import { formFleet } from './form.ts'
import { networksNow } from './network.ts'
import { type DevOptions, parseDevOptions } from './options.ts'
import { readProcess } from './processes.ts'
import { devSettings } from './settings.ts'

const components = { run: runCommand, clock: systemClock, random: systemRandom }
const lookMs = 500
const stopMs = 30_000

const say = (line: string): void => void process.stderr.write(`==> ${line}\n`)

function farewell(fleet: DevFleet, { separate }: DevOptions): string {
  const rows = fleet.hosts.map(host => [host.name, host.rack, host.address, host.socket])
  const grid = [['HOST', 'RACK', 'ADDRESS', 'SOCKET'], ...rows]
  const widths = [0, 1, 2].map(column => Math.max(...grid.map(row => row[column]?.length ?? 0)))
  const lines = grid.map(row => row.map((cell, at) => cell.padEnd(widths[at] ?? 0)).join('   '))
  const [first] = fleet.hosts
  const any = separate ? 'Each host is one of its own' : 'Any host answers for all'
  const hint = `${any}: macfleet --socket ${first?.socket} get hosts`
  return [...lines, '', hint, ''].join('\n')
}

/** Runs hosts until it is told to stop, or whoever started it is gone; leaves nothing. */
async function runFleet(options: DevOptions): Promise<void> {
  const parent = process.ppid
  const isDetached = process.send !== undefined
  const stopping = new AbortController()
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => stopping.abort())
  }
  const settings = devSettings(options.hosts)
  const fleet = await createDevFleet({ ...options, settings }, components)
  const stopped = new Promise<void>(resolve => {
    stopping.signal.addEventListener('abort', () => resolve())
    if (stopping.signal.aborted) resolve()
  })
  try {
    await Promise.race([startFleet(fleet, options), stopped])
    while (!stopping.signal.aborted && (isDetached || process.ppid === parent)) {
      await Promise.race([sleep(systemClock, lookMs), stopped])
    }
    say('ending all of it')
  } finally {
    await fleet.remove()
  }
}

async function startFleet(fleet: DevFleet, options: DevOptions): Promise<void> {
  say(`starting ${options.hosts} hosts in ${options.racks} racks, on ${fleet.subnet}`)
  await fleet.start()
  if (!options.separate) await formFleet(fleet.hosts, { clock: systemClock, say })
  const text = farewell(fleet, options)
  if (process.send === undefined) process.stdout.write(`${text}Ctrl-C ends all of it.\n`)
  else process.send(text)
}

/** Starts this program again, in a session of its own, and ends when everything runs. */
async function detach(options: DevOptions): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'macfleet-dev-'))
  const path = join(folder, 'log')
  const log = openSync(path, 'a', 0o600)
  const { hosts, racks, separate } = options
  const words = ['--hosts', String(hosts), '--racks', String(racks)]
  const args = [...process.execArgv, join(import.meta.dirname, 'main.ts'), ...words]
  const child = spawn(process.execPath, separate ? [...args, '--separate'] : args, {
    detached: true,
    stdio: ['ignore', log, log, 'ipc'],
  })
  closeSync(log)
  const text = await new Promise<string | undefined>(resolve => {
    child.once('message', message => resolve(String(message)))
    child.once('exit', () => resolve(undefined))
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
      process.on(signal, () => child.kill('SIGTERM'))
    }
  })
  const said = readFileSync(path, 'utf8')
  rmSync(folder, { recursive: true, force: true })
  process.stderr.write(said)
  if (text === undefined) process.exit(1)
  process.stdout.write(`${text}\`macfleet dev --stop\` ends all of it.\n`)
  child.disconnect()
  child.unref()
}

/** Ends every fleet of this machine that `macfleet dev` made, and what dead makers left. */
async function stop(): Promise<void> {
  const owners = networksNow().map(plan => plan.owner)
  const running = owners.filter(owner => {
    const command = isAlive(owner) ? (readProcess(owner.pid)?.command ?? '') : ''
    return command.includes('/agent/dev/main.ts')
  })
  for (const owner of running) signalProcess(owner, 'SIGTERM')
  const deadlineMs = systemClock.monotonicMs() + stopMs
  while (running.some(isAlive) && systemClock.monotonicMs() < deadlineMs) {
    await sleep(systemClock, lookMs)
  }
  for (const owner of running) signalProcess(owner, 'SIGKILL')
  while (running.some(isAlive)) await sleep(systemClock, lookMs)
  await removeLeftovers(components)
  say(running.length === 0 ? 'none runs' : 'nothing of it runs any more')
}

try {
  const options = parseDevOptions(process.argv.slice(2))
  if (options.stop) await stop()
  else await (options.detach ? detach(options) : runFleet(options))
  process.exit(0)
} catch (error) {
  process.stderr.write(`error: ${messageOf(error)}\n`)
  process.exit(error instanceof MacfleetError && error.code === 'badRequest' ? 2 : 1)
}
