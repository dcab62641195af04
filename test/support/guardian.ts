import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, mkdirSync, openSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'
import { connectGuardian, type Guardian } from '../../agent/guardian/client.ts'
import type { ExitEvent, StartParameters } from '../../agent/guardian/protocol.ts'
import { sleep, systemClock } from '../../base/clock.ts'
import { defaultLimits } from '../../base/limits.ts'
import { silentLog } from '../../base/log.ts'
import { identify } from '../../base/process-identity.ts'
import { temporaryFolder } from './temporary-folder.ts'

/** A guardian of a test's own. */
export interface TestGuardian {
  folder: string
  runFolder: string
  dataFolder: string
  socketPath: string
  process: ChildProcess
}

/** A client of it that remembers which ends it was told. */
export interface TestClient extends Guardian {
  exits: ExitEvent[]
}

const checkout = join(import.meta.dirname, '../..')
const program = join(checkout, 'agent/guardian/main.ts')
/** Shared by all tests: compiled once, a guardian starts in half the time. */
const NODE_COMPILE_CACHE = join(checkout, '.macfleet/cache/compiled')

/** Starts a guardian with folders below `folder`; it may not be ready yet. */
export function startGuardian(
  folder = temporaryFolder(),
  { runFolder = join(folder, 'run'), dataFolder = join(folder, 'data') } = {},
): TestGuardian {
  mkdirSync(runFolder, { recursive: true })
  const args = [program, '--run-dir', runFolder, '--data-dir', dataFolder]
  const log = openSync(join(folder, 'guardian.stderr'), 'a')
  const child = spawn(process.execPath, args, {
    env: { ...process.env, NODE_COMPILE_CACHE },
    stdio: ['ignore', log, log],
  })
  closeSync(log)
  onTestFinished(() => endProcess(child))
  return {
    folder,
    runFolder,
    dataFolder,
    process: child,
    socketPath: join(runFolder, 'guardian.sock'),
  }
}

/** Kills a process and waits until it is gone. */
export async function endProcess(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  child.kill('SIGKILL')
  await once(child, 'exit')
}

/** Connects to a guardian, whenever it is ready. */
export function connectTo(guardian: { socketPath: string }): TestClient {
  const client = connectGuardian(
    {
      socketPath: guardian.socketPath,
      timeoutMs: 10_000,
      reconnect: { firstMs: 10, mostMs: 50 },
      limits: defaultLimits,
    },
    { clock: systemClock, log: silentLog },
  )
  const exits: ExitEvent[] = []
  client.onExit(event => exits.push(event))
  onTestFinished(() => client.close())
  return { ...client, exits }
}

/** A shell script for a guardian to run, bound to its life as guests are. */
export function script(guardian: TestGuardian, name: string, text: string): StartParameters {
  return {
    name,
    command: 'setpriv',
    arguments: ['--pdeathsig', 'KILL', '--', 'sh', '-c', text],
    workingFolder: guardian.folder,
    stderrPath: join(guardian.folder, `${name}.stderr`),
    exitPath: join(guardian.folder, `${name}.exit.json`),
    logs: [],
  }
}

/** Waits for a condition, at most 10 s. */
export async function until(
  what: string,
  condition: () => boolean | Promise<boolean>,
): Promise<void> {
  const deadlineMs = systemClock.monotonicMs() + 10_000
  while (!(await condition())) {
    if (systemClock.monotonicMs() > deadlineMs) throw new Error(`not within 10 s: ${what}`)
    await sleep(systemClock, 10)
  }
}

/** Whether no process with that pid runs. */
export function isGone(pid: number): boolean {
  return identify(pid) === undefined
}

/** The pids of all processes that have a text in their command line. */
export function processesWith(text: string): number[] {
  return readdirSync('/proc')
    .filter(name => /^\d+$/.test(name))
    .map(Number)
    .filter(pid => !isGone(pid) && readCommandLine(pid).includes(text))
}

function readCommandLine(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8')
  } catch {
    return ''
  }
}
