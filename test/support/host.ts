import { spawn, spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, readlinkSync, rmSync } from 'node:fs'
import { request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import {
  checkout,
  type LocalHost,
  startLocalHost,
  stopLocalHost,
} from '../../agent/dev/local-host.ts'
import { identify, signalProcess } from '../../base/process-identity.ts'
import type { VirtualMachine } from '../../resources/virtual-machine.ts'

/** How a command of `macfleet` ended, and what it said. */
export interface CliResult {
  code: number | null
  stdout: string
  stderr: string
}

/** A real daemon in folders of its own, and the command line that speaks to it. */
export interface TestHost {
  /** Where it is now; changes with a restart. */
  host: LocalHost
  folder: string
  /** Runs `macfleet` against this host. */
  macfleet(...args: string[]): Promise<CliResult>
  /** As `macfleet`, and fails unless it ends with 0. @returns its standard output */
  must(...args: string[]): Promise<string>
  machine(name: string): Promise<VirtualMachine>
  /** Waits until a machine is as wanted; fails with how it was last. */
  untilMachine(
    name: string,
    wanted: (machine: VirtualMachine) => boolean,
    timeoutMs?: number,
  ): Promise<VirtualMachine>
  /** Kills the daemon as a crash would. */
  kill(): Promise<void>
  /** Starts the daemon again, after a kill. */
  start(): Promise<void>
  /** Processes whose command line names this host's data folder. */
  processes(): { pid: number; command: string }[]
  /** Ends everything and removes its folders. */
  remove(): Promise<void>
}

/** What a test may choose about a host beside its settings. */
export interface TestHostInit {
  /** Called before the daemon is first started. */
  prepare?(folder: string): void
  /** Called when nothing runs any more and before the folder is removed. */
  cleanUp?(folder: string): void
  /** How a program of this checkout, named by its path in it, is run; by itself when left out. */
  command?(folder: string, program: string): string[]
}

const directly: Required<TestHostInit> = {
  prepare: () => {},
  cleanUp: () => {},
  command: (_, program) => [join(checkout, program)],
}

/**
 * Environment of the command line, so that it reads no settings of the person who runs the test.
 */
export function environmentOf(folder: string): NodeJS.ProcessEnv {
  const { MACFLEET_SOCKET: _, ...rest } = process.env
  return { ...rest, MACFLEET_CONFIG_DIR: join(folder, 'config'), NO_COLOR: '1' }
}

/** Runs a program to its end; never fails. */
export function runCli(
  command: string,
  args: readonly string[],
  environment: NodeJS.ProcessEnv,
  timeoutMs = 90_000,
): Promise<CliResult> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { env: environment, timeout: timeoutMs })
    const output = { stdout: '', stderr: '' }
    child.stdout.on('data', bytes => {
      output.stdout += bytes
    })
    child.stderr.on('data', bytes => {
      output.stderr += bytes
    })
    child.stdin.end()
    child.on('error', reject)
    child.on('close', code => resolve({ code, ...output }))
  })
}

/** Tries until `attempt` gives something, or fails with what it said last. */
export async function until<T>(
  what: string,
  attempt: () => Promise<T | undefined> | T | undefined,
  timeoutMs = 30_000,
): Promise<T> {
  const deadlineMs = performance.now() + timeoutMs
  for (;;) {
    const found = await attempt()
    if (found !== undefined) return found
    if (performance.now() > deadlineMs) throw new Error(`not within ${timeoutMs} ms: ${what}`)
    await delay(50)
  }
}

/** Whether a guest of a machine answers. */
export function isReady(machine: VirtualMachine): boolean {
  return machine.status?.conditions?.find(at => at.type === 'Ready')?.status === 'True'
}

/** Guests of hosts that run side by side get users of their own. */
let ranges = 0
function ownUsers(): { first: number; last: number } {
  const first = 230_000 + ((process.pid * 7 + ranges++) % 900) * 300
  return { first, last: first + 299 }
}

/** Starts a host whose folders nobody else has. */
export async function createTestHost(
  settings: Record<string, unknown> = {},
  surroundings: TestHostInit = {},
): Promise<TestHost> {
  const { prepare, cleanUp, command } = { ...directly, ...surroundings }
  const folder = mkdtempSync(join(tmpdir(), 'mf-'))
  const all = { cpuOvercommit: 32, guestUsers: ownUsers(), ...settings }
  const environment = environmentOf(folder)
  const start = () =>
    startLocalHost({ folder, settings: all, command: command(folder, 'bin/macfleetd') })
  const remove = () => removeHost(folder, cleanUp)
  prepare(folder)
  const host = await start().catch(async error => {
    await remove()
    throw error
  })
  const [program = '', ...before] = command(folder, 'bin/macfleet')
  const macfleet = (...args: string[]) =>
    runCli(program, [...before, '--socket', test.host.socket, ...args], environment)
  const must = async (...args: string[]) => {
    const result = await macfleet(...args)
    if (result.code === 0) return result.stdout
    throw new Error(`macfleet ${args.join(' ')}: ${result.code}: ${result.stderr}${result.stdout}`)
  }
  const machine = (name: string) => readMachine(test.host.socket, name)
  const test: TestHost = {
    host,
    folder,
    macfleet,
    must,
    machine,
    untilMachine: (name, wanted, timeoutMs = 60_000) => untilMachine(test, name, wanted, timeoutMs),
    kill: async () => {
      const identity = identify(test.host.pid)
      if (identity !== undefined) signalProcess(identity, 'SIGKILL')
      await until('the daemon is gone', () => (identify(test.host.pid) ? undefined : true))
    },
    start: async () => {
      test.host = await start()
    },
    processes: () => processesOf(test.host.dataDir),
    remove,
  }
  return test
}

function readMachine(socketPath: string, name: string): Promise<VirtualMachine> {
  const path = `/apis/macfleet.dev/v1/namespaces/default/virtualmachines/${name}`
  return readApi<VirtualMachine>(socketPath, path)
}

/**
 * Reads something from the API. Not by the command line: a process for every look would take from
 * the guests, which run at the lowest priority, what they need to get anywhere.
 */
export function readApi<Answer>(socketPath: string, path: string): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const asked = request({ socketPath, path, timeout: 10_000 }, response => {
      let body = ''
      response.setEncoding('utf8')
      response.on('data', text => {
        body += text
      })
      response.on('error', reject)
      response.on('end', () => {
        if (response.statusCode === 200) resolve(JSON.parse(body))
        else reject(new Error(`${path}: ${response.statusCode}: ${body}`))
      })
    })
    asked.on('timeout', () => asked.destroy(new Error('the API did not answer')))
    asked.on('error', reject)
    asked.end()
  })
}

async function untilMachine(
  test: TestHost,
  name: string,
  wanted: (machine: VirtualMachine) => boolean,
  timeoutMs: number,
): Promise<VirtualMachine> {
  let last: unknown
  const attempt = async () => {
    const machine = await test.machine(name)
    last = machine.status
    return wanted(machine) ? machine : undefined
  }
  return await until(`machine ${name}`, attempt, timeoutMs).catch(error => {
    throw new Error(`${error.message}; last: ${JSON.stringify(last)}`)
  })
}

async function removeHost(folder: string, cleanUp: (folder: string) => void): Promise<void> {
  await stopLocalHost(folder)
  cleanUp(folder)
  rmSync(folder, { recursive: true, force: true })
}

/** Processes that name a folder in their command line, or work in it. */
export function processesOf(dataDir: string): { pid: number; command: string }[] {
  const { stdout } = spawnSync('ps', ['-eo', 'pid=,args='], { encoding: 'utf8' })
  return stdout
    .split('\n')
    .map(line => /^\s*(\d+)\s+(.*)$/.exec(line))
    .filter(match => match !== null)
    .map(([, pid, command]) => ({ pid: Number(pid), command: command ?? '' }))
    .filter(
      ({ pid, command }) => command.includes(dataDir) || workingFolder(pid).startsWith(dataDir),
    )
}

function workingFolder(pid: number): string {
  try {
    return readlinkSync(`/proc/${pid}/cwd`)
  } catch {
    return ''
  }
}

/** The pids of the QEMU processes of a host. */
export function qemuPids(test: TestHost): number[] {
  return test
    .processes()
    .filter(({ command }) => /^\S*qemu-system/.test(command))
    .map(({ pid }) => pid)
}

/** A text file's content; empty when there is none. */
export function contentOf(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}
