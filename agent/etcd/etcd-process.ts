import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import type { BackoffInit } from '../../base/backoff.ts'
import { backoffMs } from '../../base/backoff.ts'
import { type Clock, sleep } from '../../base/clock.ts'
import type { Log } from '../../base/log.ts'
import type { ProcessIdentity } from '../../base/process-identity.ts'
import type { Guardian } from '../guardian/client.ts'
import type { ExitRecord, GuardedProcess, StartParameters } from '../guardian/protocol.ts'
import {
  type EtcdCommandInit,
  etcdArguments,
  type InitialCluster,
  initialEnvironment,
} from './etcd-command.ts'
import type { EtcdFolder } from './etcd-folder.ts'
import { etcdProcessName } from './etcd-name.ts'

/** How etcd is run on this host. */
export interface EtcdProcessInit extends EtcdCommandInit {
  folder: EtcdFolder
  /** Bytes of etcd's log before the guardian rotates it. */
  logBytes: number
}

/** What running it needs. */
export interface EtcdProcessComponents {
  guardian: Pick<Guardian, 'list' | 'start' | 'signal' | 'forget'>
  clock: Clock
  log: Log
}

/** etcd on this host: a process of the guardian, which outlives the daemon. */
export interface EtcdProcess {
  /** Whether it runs now, with whatever arguments. */
  runs(): Promise<boolean>
  /**
   * Makes sure that it runs as `init` says: one that does is left alone, one with other arguments
   * or with another CA is ended first. After it died it is started again, each time later.
   * @param initial how it begins where it has no data; ignored by etcd where it has
   * @param mayRestart whether one that runs otherwise may be ended now; it is left alone if not
   * @returns whether it runs; not while a start is put off
   * @throws guardianUnavailable, commandMissing, guardianRefused
   */
  ensure(initial?: InitialCluster, mayRestart?: () => Promise<boolean>): Promise<boolean>
  /** Ends it and waits until it has. @throws guardianUnavailable */
  stop(): Promise<void>
}

/** Between an end and the next start. */
const restartBackoff: BackoffInit = { firstMs: 500, mostMs: 30_000 }
/** One that ran so long was well: its end is not counted with those before. */
const wellMs = 60_000
/** How long it may take to end when it is asked to, and when it is killed. */
const endMs = 5000
const lookMs = 20

/** Makes the handle; nothing is started. */
export function createEtcdProcess(
  init: EtcdProcessInit,
  components: EtcdProcessComponents,
): EtcdProcess {
  const { guardian, clock, log } = components
  const wanted = etcdArguments(init, init.folder)
  let failures = 0
  let startedMs = Number.NEGATIVE_INFINITY
  let notBeforeMs = Number.NEGATIVE_INFINITY

  const find = async (): Promise<GuardedProcess | undefined> =>
    (await guardian.list()).find(({ name }) => name === etcdProcessName)

  const collect = async (ended: ExitRecord): Promise<void> => {
    const nowMs = clock.monotonicMs()
    failures = nowMs - startedMs > wellMs ? 1 : failures + 1
    // The first end is nearly always a kill or a restart of the machine: no reason to wait.
    notBeforeMs = nowMs + (failures === 1 ? 0 : backoffMs(restartBackoff, failures - 1))
    const { reason, code, signal, stderrTail } = ended
    log.warn({ reason, code, signal, stderrTail, failures }, 'etcd has ended')
    await guardian.forget(etcdProcessName)
  }

  const end = async (process: GuardedProcess): Promise<void> => {
    for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
      if (process.identity !== undefined) {
        await guardian.signal(etcdProcessName, signal, process.identity)
      }
      if (await waitForEnd(find, clock)) break
    }
    await guardian.forget(etcdProcessName)
  }

  const isAsWanted = async (process: GuardedProcess, trust: string): Promise<boolean> => {
    // The guardian was asked to start it, by us or by the daemon before us, and has not said more.
    if (process.identity === undefined) return true
    return runsAs(process.identity, wanted, trust)
  }

  return {
    async runs() {
      const process = await find()
      return process !== undefined && process.ended === undefined
    },
    async ensure(initial, mayRestart = async () => true) {
      const trust = await trustOf(init.tls.ca)
      const process = await find()
      if (process !== undefined && process.ended === undefined) {
        if ((await isAsWanted(process, trust)) || !(await mayRestart())) return true
        log.info({}, 'etcd runs with other settings, and is started anew')
        await end(process)
      } else if (process?.ended !== undefined) await collect(process.ended)
      if (clock.monotonicMs() < notBeforeMs) return false
      startedMs = clock.monotonicMs()
      const identity = await guardian.start(startParameters(init, wanted, trust, initial))
      log.info({ ...identity, state: initial?.state }, 'etcd was started')
      return true
    },
    async stop() {
      const process = await find()
      if (process === undefined) return
      if (process.ended === undefined) await end(process)
      else await guardian.forget(etcdProcessName)
      failures = 0
      notBeforeMs = Number.NEGATIVE_INFINITY
    },
  }
}

async function waitForEnd(
  find: () => Promise<GuardedProcess | undefined>,
  clock: Clock,
): Promise<boolean> {
  const untilMs = clock.monotonicMs() + endMs
  while (clock.monotonicMs() < untilMs) {
    const process = await find()
    if (process === undefined || process.ended !== undefined) return true
    await sleep(clock, lookMs)
  }
  return false
}

/** Says in etcd's environment which CA it was started with: it reads that file once only. */
const trustVariable = 'MACFLEET_ETCD_TRUST'

async function trustOf(caPath: string): Promise<string> {
  return createHash('sha256')
    .update(await readFile(caPath))
    .digest('hex')
}

/**
 * Whether a process was started with these arguments and this CA; its own words, from the kernel
 * (proc(5)). While it is still setpriv, its command line ends the same way.
 */
async function runsAs(
  { pid }: ProcessIdentity,
  wanted: readonly string[],
  trust: string,
): Promise<boolean> {
  const [line, environment] = await Promise.all([
    readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => ''),
    readFile(`/proc/${pid}/environ`, 'utf8').catch(() => ''),
  ])
  return (
    line.endsWith(`\0${wanted.join('\0')}\0`) &&
    environment.split('\0').includes(`${trustVariable}=${trust}`)
  )
}

function startParameters(
  { program, folder, logBytes }: EtcdProcessInit,
  args: readonly string[],
  trust: string,
  initial: InitialCluster | undefined,
): StartParameters {
  const privileges = ['--no-new-privs', '--inh-caps=-all']
  // As root it keeps its user, whose files the keys are, and loses everything else.
  if (process.getuid?.() === 0) privileges.push('--ambient-caps=-all', '--bounding-set=-all')
  return {
    name: etcdProcessName,
    command: 'setpriv',
    arguments: ['--pdeathsig', 'KILL', ...privileges, '--', program, ...args],
    environment: { [trustVariable]: trust, ...(initial && initialEnvironment(initial)) },
    stderrPath: folder.stderr,
    exitPath: folder.exit,
    logs: [{ path: folder.log, limitBytes: logBytes }],
  }
}
