import { readdirSync, readFileSync } from 'node:fs'
import { setPriority } from 'node:os'
import { createInterface } from 'node:readline'
import { setTimeout as delay } from 'node:timers/promises'
import { namespaceFolder, namespaceInode, readProcess } from '../../agent/dev/processes.ts'
import { isAlive } from '../../base/process-identity.ts'
import type { GuestRun, WatcherLine } from './guest-watcher.ts'

/**
 * Looks at the processes of this machine about eighty times a second and says on standard output
 * which guests begin and end, as the kernel has it. A process of its own, so that it goes on
 * looking whatever its test is busy with. Ends with its standard input.
 *
 * node guest-watcher-process.ts PREFIX   (of the names of the namespaces to look at)
 */
const prefix = process.argv[2] ?? ''
const sampleMs = 10
/** So many samples a new process is looked at: it may become QEMU yet. Later only now and then. */
const youngSamples = 40
const againSamples = 100

/** Milliseconds since boot, which is what the kernel counts the starts of processes in. */
const uptimeMs = Number(readFileSync('/proc/uptime', 'utf8').split(' ')[0]) * 1000
const asleepMs = uptimeMs - Number(process.hrtime.bigint()) / 1e6
const offsetMs = Math.abs(asleepMs) < 100 ? 0 : asleepMs
const nowMs = (): number => Number(process.hrtime.bigint()) / 1e6 + offsetMs

const say = (line: WatcherLine): void => void process.stdout.write(`${JSON.stringify(line)}\n`)

const namespaces = new Map<number, string>()
/** The host whose namespace a process is in; it may have lost its name since. */
function hostOf(pid: number): string | undefined {
  for (const name of readdirSync(namespaceFolder)) {
    const inode = name.startsWith(prefix) ? namespaceInode(name) : undefined
    if (inode !== undefined) namespaces.set(inode, name.slice(prefix.length))
  }
  return namespaces.get(namespaceInode(pid) ?? 0)
}

const runs = new Map<number, GuestRun>()
/** When each other process was first seen, in samples. */
const others = new Map<number, number>()
// Before the guests and the daemons, which may take all there is.
setPriority(-10)
let samples = 0
let lastMs = nowMs()
let longestGapMs = 0

function sample(): void {
  const atMs = nowMs()
  if (samples++ > 0) longestGapMs = Math.max(longestGapMs, atMs - lastMs)
  lastMs = atMs
  for (const [pid, run] of runs) {
    if (isAlive(run)) run.lastSeenMs = atMs
    else {
      runs.delete(pid)
      say({ event: 'gone', run: { ...run, goneMs: nowMs() } })
    }
  }
  const pids = new Set(readdirSync('/proc').map(Number))
  for (const pid of others.keys()) if (!pids.has(pid)) others.delete(pid)
  for (const pid of pids) {
    if (pid > 0 && !runs.has(pid)) look(pid, atMs)
  }
}

function look(pid: number, atMs: number): void {
  const first = others.get(pid) ?? samples
  others.set(pid, first)
  const age = samples - first
  if (age > youngSamples && (age + pid) % againSamples > 0) return
  const found = readProcess(pid)
  if (found?.guest === undefined) return
  const host = hostOf(pid)
  if (host === undefined) return
  const { startTicks, guest } = found
  const startedMs = startTicks * 10
  const run = { ...guest, host, pid, startTicks, startedMs, lastSeenMs: atMs }
  others.delete(pid)
  runs.set(pid, run)
  say({ event: 'began', run })
}

/** A line asks for a sample, made now. */
createInterface({ input: process.stdin }).on('line', id => {
  sample()
  for (const run of runs.values()) say({ event: 'runs', run })
  say({ event: 'sampled', id, samples, longestGapMs })
})
process.stdin.on('end', () => process.exit(0))

for (;;) {
  sample()
  await delay(sampleMs)
}
