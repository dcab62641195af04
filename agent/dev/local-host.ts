import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, mkdirSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { request } from 'node:http'
import { join } from 'node:path'
import { stringify } from 'yaml'
import { sleep, systemClock } from '../../base/clock.ts'
import { runCommand } from '../../base/command.ts'
import { defaultLimits } from '../../base/limits.ts'
import { silentLog } from '../../base/log.ts'
import { identify, isAlive, signalProcess } from '../../base/process-identity.ts'
import { removeFirewall } from '../../kvm/firewall.ts'
import { connectGuardian } from '../guardian/client.ts'
import { firewallName } from '../guest-firewall.ts'

/** The checkout that this file lies in. */
export const checkout = join(import.meta.dirname, '../..')

/** A host on this machine: one daemon with folders of its own. */
export interface LocalHostInit {
  /** Everything it writes lies in here. */
  folder: string
  /** Settings for its configuration file, beside its folders. */
  settings?: Record<string, unknown>
  /** How long it may take until it is ready. */
  timeoutMs?: number
  /** What starts `macfleetd`; the launcher of this checkout when left out. */
  command?: readonly string[]
}

/** Where everything of a local host is. */
export interface LocalHost {
  folder: string
  socket: string
  runDir: string
  dataDir: string
  log: string
  pid: number
}

const retryMs = 50

function pathsOf(folder: string) {
  const runDir = join(folder, 'run')
  return {
    folder,
    runDir,
    dataDir: join(folder, 'data'),
    config: join(folder, 'macfleetd.yaml'),
    log: join(folder, 'macfleetd.log'),
    pidFile: join(folder, 'macfleetd.pid'),
    socket: join(runDir, 'macfleet.sock'),
    guardian: join(runDir, 'guardian.sock'),
  }
}

/** The host in a folder, when its daemon runs. */
export function findLocalHost(folder: string): LocalHost | undefined {
  const paths = pathsOf(folder)
  try {
    const identity = JSON.parse(readFileSync(paths.pidFile, 'utf8'))
    return isAlive(identity) ? { ...paths, pid: identity.pid } : undefined
  } catch {
    return undefined
  }
}

/**
 * Starts the daemon of a local host unless it runs, and waits until it is ready. It outlives the
 * process that started it. This is what script/quickstart does and what the tests stand on.
 */
export async function startLocalHost(init: LocalHostInit): Promise<LocalHost> {
  const paths = pathsOf(init.folder)
  const timeoutMs = init.timeoutMs ?? 20_000
  const found = findLocalHost(init.folder)
  if (found !== undefined) {
    await waitUntilReady(found, undefined, timeoutMs)
    return found
  }
  mkdirSync(paths.runDir, { recursive: true, mode: 0o700 })
  const { runDir, dataDir } = paths
  writeFileSync(paths.config, stringify({ runDir, dataDir, ...init.settings }))
  const logFile = openSync(paths.log, 'a', 0o600)
  const [program = '', ...args] = init.command ?? [join(checkout, 'bin/macfleetd')]
  const daemon = spawn(program, [...args, '--config', paths.config], {
    detached: true,
    stdio: ['ignore', logFile, logFile],
  })
  closeSync(logFile)
  daemon.unref()
  const pid = daemon.pid
  if (pid === undefined) throw new Error('macfleetd could not be started')
  writeFileSync(paths.pidFile, JSON.stringify(identify(pid) ?? { pid, startTicks: 0 }))
  const host = { ...paths, pid }
  await waitUntilReady(host, daemon, timeoutMs)
  return host
}

async function waitUntilReady(
  host: LocalHost,
  daemon: ChildProcess | undefined,
  timeoutMs: number,
): Promise<void> {
  const deadlineMs = systemClock.monotonicMs() + timeoutMs
  while (systemClock.monotonicMs() < deadlineMs) {
    if (await isReady(host.socket)) return
    if (daemon !== undefined && (daemon.exitCode !== null || daemon.signalCode !== null)) break
    await sleep(systemClock, retryMs)
  }
  const log = readFileSync(host.log, 'utf8').trim().split('\n').slice(-5).join('\n')
  throw new Error(`macfleetd is not ready; ${host.log} ends with:\n${log}`)
}

/** Whether a daemon answers on the socket and says that it is ready. */
export function isReady(socketPath: string): Promise<boolean> {
  return new Promise(resolve => {
    const ask = request({ socketPath, path: '/readyz', timeout: 2000 }, response => {
      response.resume()
      resolve(response.statusCode === 200)
    })
    ask.on('error', () => resolve(false))
    ask.on('timeout', () => ask.destroy())
    ask.end()
  })
}

/**
 * Stops a local host: the daemon, then the guardian and with it every guest, at once. Nothing is
 * left running; what is on disk stays.
 */
export async function stopLocalHost(folder: string, timeoutMs = 20_000): Promise<void> {
  const paths = pathsOf(folder)
  const host = findLocalHost(folder)
  if (host !== undefined) await endProcess(host.pid, timeoutMs)
  rmSync(paths.pidFile, { force: true })
  const guardian = connectGuardian(
    {
      socketPath: paths.guardian,
      timeoutMs: 1000,
      reconnect: { firstMs: retryMs, mostMs: retryMs },
      limits: defaultLimits,
    },
    { clock: systemClock, log: silentLog },
  )
  try {
    const { pid } = await guardian.hello()
    await guardian.stop(true)
    await endProcess(pid, timeoutMs)
  } catch {
    // None runs.
  } finally {
    guardian.close()
  }
  // Where there is no nft, there was no firewall.
  if (process.getuid?.() === 0) {
    await removeFirewall(firewallName(paths.dataDir), runCommand).catch(() => {})
  }
}

/** Ends a process by SIGTERM and waits; SIGKILL when it takes longer than it may. */
export async function endProcess(pid: number, timeoutMs: number): Promise<void> {
  const identity = identify(pid)
  if (identity === undefined) return
  signalProcess(identity, 'SIGTERM')
  const deadlineMs = systemClock.monotonicMs() + timeoutMs
  while (isAlive(identity)) {
    if (systemClock.monotonicMs() > deadlineMs) signalProcess(identity, 'SIGKILL')
    await sleep(systemClock, retryMs)
  }
}
