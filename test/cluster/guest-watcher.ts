import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import type { ProcessIdentity } from '../../base/process-identity.ts'

/** One life of one QEMU process. All times are in milliseconds since this machine booted. */
export interface GuestRun extends ProcessIdentity {
  /** Of its virtual machine; its name is `NAMESPACE/NAME`. */
  uid: string
  name: string
  host: string
  /** When the process began, by the kernel; to 10 ms, rounded down. */
  startedMs: number
  /** It surely ran then. */
  lastSeenMs: number
  /** It surely ran no more then; left out while it runs. */
  goneMs?: number
}

/** What the watching process says, a line each. */
export type WatcherLine =
  | { event: 'began' | 'runs' | 'gone'; run: GuestRun }
  | { event: 'sampled'; id: string; samples: number; longestGapMs: number }

/** All guests that ran since the watcher began, and how well it could look. */
export interface Timeline {
  /** By their start. */
  runs: GuestRun[]
  samples: number
  /** The longest time between two looks. A guest that lived for less may not be here. */
  longestGapMs: number
}

/** Reads the hosts, not the store: which guests run, from outside. */
export interface GuestWatcher {
  /** What was seen until now. */
  timeline(): Promise<Timeline>
  stop(): Promise<void>
}

/** Records all guests of the hosts that have namespaces beside this one. */
export async function watchGuests(fleet: {
  hosts: readonly { name: string; namespace: string }[]
}): Promise<GuestWatcher> {
  const first = fleet.hosts[0]
  if (first === undefined) throw new Error('there is no host to watch')
  const prefix = first.namespace.slice(0, -first.name.length)
  const program = fileURLToPath(new URL('./guest-watcher-process.ts', import.meta.url))
  const child = spawn(process.execPath, [program, prefix], { stdio: ['pipe', 'pipe', 'inherit'] })
  const ended = once(child, 'exit')
  const runs = new Map<string, GuestRun>()
  const waiting = new Map<string, (timeline: Timeline) => void>()
  const sorted = () => [...runs.values()].sort((one, other) => one.startedMs - other.startedMs)
  createInterface({ input: child.stdout }).on('line', text => {
    const line = JSON.parse(text) as WatcherLine
    if (line.event !== 'sampled') runs.set(`${line.run.pid} ${line.run.startTicks}`, line.run)
    else {
      const { id, samples, longestGapMs } = line
      waiting.get(id)?.({ runs: sorted(), samples, longestGapMs })
      waiting.delete(id)
    }
  })
  let asked = 0
  const timeline = (): Promise<Timeline> => {
    const id = String(asked++)
    const answer = new Promise<Timeline>(resolve => waiting.set(id, resolve))
    const dead = ended.then(() => Promise.reject(new Error('the watcher of guests has ended')))
    child.stdin.write(`${id}\n`)
    return Promise.race([answer, dead])
  }
  // What runs already is known when this returns.
  await timeline()
  return {
    timeline,
    async stop() {
      child.stdin.end()
      await ended
    },
  }
}

/**
 * Runs of one machine that are not proven to have been one after the other. On two hosts that needs
 * the first one seen gone before the kernel started the second; on one host, where nothing but its
 * daemon's order of steps is at stake, it is enough that they were never seen together.
 */
export function overlaps(runs: readonly GuestRun[]): [GuestRun, GuestRun][] {
  return runs.flatMap((one, index) =>
    runs.slice(index + 1).flatMap((other): [GuestRun, GuestRun][] => {
      if (one.uid !== other.uid) return []
      const [first, second] = one.startedMs <= other.startedMs ? [one, other] : [other, one]
      const surelyGoneMs = first.goneMs ?? Number.POSITIVE_INFINITY
      const untilMs = first.host === second.host ? first.lastSeenMs : surelyGoneMs
      return second.startedMs < untilMs ? [[first, second]] : []
    }),
  )
}
