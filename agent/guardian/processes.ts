import { type Clock, preciseTimestamp } from '../../base/clock.ts'
import { failure, messageOf } from '../../base/errors.ts'
import { writeFileAtomic } from '../../base/files.ts'
import type { Limits } from '../../base/limits.ts'
import type { Log } from '../../base/log.ts'
import { isAlive, type ProcessIdentity } from '../../base/process-identity.ts'
import { type Child, startChild } from './child.ts'
import type { Fencing } from './fencing.ts'
import { markOf } from './orphans.ts'
import type {
  EndReason,
  ExitRecord,
  FencedGuest,
  GuardedLog,
  GuardedProcess,
  GuestClaim,
  StartParameters,
} from './protocol.ts'
import type { Registry, RegistryEntry } from './registry.ts'

/** How processes are kept. */
export interface ProcessesInit {
  dataFolder: string
  bootId: string
  /** Processes of an earlier guardian, all ended. */
  ended: readonly RegistryEntry[]
  limits: Limits
  /** Told once for every end, after it is on disk. */
  onExit(process: GuardedProcess & { ended: ExitRecord }): void
}

/** What processes need. */
export interface ProcessesComponents {
  clock: Clock
  log: Log
  registry: Registry
  fencing: Pick<Fencing, 'admit' | 'release' | 'deadlineOf' | 'isDue'>
}

/** The guardian's children: those that run, and those whose end was not yet forgotten. */
export interface Processes {
  /**
   * Starts a process; the only door through which one comes to be.
   * @throws guardianNameTaken, tooMany, commandMissing, guardianRefused, guardianFenced
   */
  start(parameters: StartParameters): Promise<ProcessIdentity>
  list(): GuardedProcess[]
  /**
   * Sends a signal to exactly the process that the caller means; false when it has ended.
   * @throws guardianProcessNotFound, guardianStaleIdentity
   */
  signal(name: string, signal: NodeJS.Signals, identity: ProcessIdentity): boolean
  /**
   * Drops the record of an end.
   * @throws guardianProcessNotFound, or guardianNameTaken while it runs
   */
  forget(name: string): void
  /**
   * What runs was claimed anew: under another lease, or to be fenced from now on, or no more. Or it
   * is about to be (`ahead`): then it is fenced if it was not, and else nothing changes.
   * @throws guardianProcessNotFound, guardianFenced
   */
  claim(name: string, claim: GuestClaim, ahead: boolean): void
  /** Kills it at once, if it runs already. */
  kill(name: string): void
  /** Those that die by a deadline. */
  fenced(): FencedGuest[]
  /** How many run. */
  running(): number
  /** The logs of those that run. */
  logs(): GuardedLog[]
  /** Starts nothing more, kills all that run and waits until their ends are recorded. */
  killAll(): Promise<void>
}

interface Kept {
  entry: RegistryEntry
  logs: GuardedLog[]
  child?: Child
  /** Settles when its end is on disk; while it is being started, when that is done. */
  over: Promise<unknown>
}

/** Makes the set; what an earlier guardian left is in it as ended. */
export function createProcesses(init: ProcessesInit, components: ProcessesComponents): Processes {
  const { clock, log, registry, fencing } = components
  const kept = new Map<string, Kept>()
  for (const entry of init.ended) {
    kept.set(entry.name, { entry, logs: [], over: Promise.resolve() })
  }
  let stopping = false

  const reserve = (parameters: StartParameters): Kept => {
    const { name, stderrPath, exitPath } = parameters
    const there = kept.get(name)
    if (there !== undefined) {
      const state = there.entry.ended === undefined ? 'runs' : 'has ended'
      throw failure('guardianNameTaken', { name, state })
    }
    if (stopping) throw failure('guardianRefused', { method: 'start', detail: 'it is stopping' })
    const limit = init.limits.guardedProcesses
    if (kept.size >= limit) throw failure('tooMany', { limit, what: 'guarded processes' })
    if (parameters.claim !== undefined) fencing.admit(name, parameters.claim)
    const startedAt = preciseTimestamp(clock)
    const entry = { name, bootId: init.bootId, startedAt, stderrPath, exitPath }
    const one: Kept = { entry, logs: parameters.logs, over: Promise.resolve() }
    kept.set(name, one)
    return one
  }

  /** Whoever killed it: when the guardian is frozen, the daemon does what is its duty. */
  const reasonOf = (signal: string | null, isDue: boolean): EndReason => {
    if (signal !== 'SIGKILL') return 'exited'
    if (stopping) return 'guardianStopped'
    return isDue ? 'fenced' : 'exited'
  }

  const recordEnd = async (one: Kept, child: Child): Promise<void> => {
    const outcome = await child.ended
    const { name } = one.entry
    const reason = reasonOf(outcome.signal, fencing.isDue(name))
    const ended = { reason, ...outcome }
    fencing.release(name)
    one.entry = { ...one.entry, ended }
    one.child = undefined
    try {
      registry.write(one.entry)
      await writeExitRecord(one.entry.exitPath, ended)
    } catch (error) {
      log.warn({ name, error: messageOf(error) }, 'an end could not be recorded')
    }
    const { code, signal } = ended
    log.info({ name, reason, code, signal }, 'a process has ended')
    init.onExit({ ...describe(one.entry), ended })
  }

  const launch = async (one: Kept, parameters: StartParameters): Promise<ProcessIdentity> => {
    const { name } = parameters
    try {
      registry.write(one.entry)
      const mark = markOf(init.dataFolder, name)
      const child = await startChild({ parameters, mark, limits: init.limits }, components)
      one.child = child
      one.entry = { ...one.entry, identity: child.identity }
      one.over = recordEnd(one, child)
      registry.write(one.entry)
      log.info({ name, ...child.identity }, 'a process was started')
      return child.identity
    } catch (error) {
      if (one.child !== undefined) one.child.kill('SIGKILL')
      else {
        kept.delete(name)
        fencing.release(name)
        registry.remove(name)
      }
      throw error
    }
  }

  return {
    async start(parameters) {
      const one = reserve(parameters)
      const launched = launch(one, parameters)
      one.over = launched.catch(() => {})
      return launched
    },
    list: () => [...kept.values()].map(one => describe(one.entry)),
    signal(name, signal, identity) {
      const one = kept.get(name)
      if (one === undefined) throw failure('guardianProcessNotFound', { name })
      const { pid, startTicks } = identity
      if (one.entry.identity?.pid !== pid || one.entry.identity.startTicks !== startTicks) {
        throw failure('guardianStaleIdentity', { name, pid })
      }
      return isAlive(identity) && (one.child?.kill(signal) ?? false)
    },
    forget(name) {
      const one = kept.get(name)
      if (one === undefined) throw failure('guardianProcessNotFound', { name })
      if (one.entry.ended === undefined) {
        throw failure('guardianNameTaken', { name, state: 'runs' })
      }
      kept.delete(name)
      registry.remove(name)
    },
    claim(name, claim, ahead) {
      const one = kept.get(name)
      if (one === undefined || one.entry.ended !== undefined) {
        throw failure('guardianProcessNotFound', { name })
      }
      if (ahead && (!claim.fenced || fencing.deadlineOf(name) !== undefined)) return
      if (claim.fenced) fencing.admit(name, claim)
      else fencing.release(name)
    },
    kill: name => kept.get(name)?.child?.kill('SIGKILL'),
    fenced: () =>
      [...kept.values()].flatMap(({ entry: { name, identity } }) => {
        const deadlineMs = fencing.deadlineOf(name)
        return deadlineMs === undefined ? [] : { name, identity, deadlineMs }
      }),
    running: () => countRunning(kept),
    logs: () => [...kept.values()].flatMap(one => (one.child === undefined ? [] : one.logs)),
    async killAll() {
      stopping = true
      // A start under way is waited for first, then its process is killed in the next round.
      while (countRunning(kept) > 0) {
        for (const one of kept.values()) one.child?.kill('SIGKILL')
        await Promise.all([...kept.values()].map(one => one.over))
      }
    },
  }
}

function countRunning(kept: Map<string, Kept>): number {
  return [...kept.values()].filter(one => one.entry.ended === undefined).length
}

function describe(entry: RegistryEntry): GuardedProcess {
  const { name, identity, startedAt, ended } = entry
  return { name, identity, startedAt, ended }
}

/** Leaves the record of an end where its reader expects it, whole or not at all. */
export function writeExitRecord(path: string, ended: ExitRecord): Promise<void> {
  return writeFileAtomic(path, JSON.stringify(ended))
}
