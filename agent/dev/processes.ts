import { readdirSync, readFileSync, statSync } from 'node:fs'
import { basename } from 'node:path'
import { type Clock, sleep } from '../../base/clock.ts'
import { failure } from '../../base/errors.ts'
import {
  identify,
  isAlive,
  type ProcessIdentity,
  signalProcess,
} from '../../base/process-identity.ts'

/** What a process of a host is. */
export type ProcessRole = 'daemon' | 'guardian' | 'etcd' | 'guest' | 'other'

/** A process of a host, told from outside: by the kernel's word, not by the daemon's. */
export interface HostProcess extends ProcessIdentity {
  role: ProcessRole
  /** A guest's machine. */
  guest?: { uid: string; name: string }
  command: string
}

/** The folder in which ip(8) keeps a name for each network namespace (ip-netns(8)). */
export const namespaceFolder = '/run/netns'

/** What a process is, by its command line; undefined when it is gone, or has none. */
export function readProcess(pid: number): HostProcess | undefined {
  const identity = identify(pid)
  if (identity === undefined) return undefined
  let words: string[]
  try {
    words = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0')
  } catch {
    return undefined
  }
  const program = basename(words[0] ?? '')
  const command = words.join(' ').trim()
  const uid = optionOf(words, '-uuid')
  // QEMU without one only says what it can.
  if (program.startsWith('qemu-system') && uid !== undefined) {
    const name = /^guest=((?:[^,]|,,)*)/.exec(optionOf(words, '-name') ?? '')?.[1] ?? ''
    const guest = { uid, name: name.replaceAll(',,', ',') }
    return { ...identity, role: 'guest', guest, command }
  }
  return { ...identity, role: program === 'etcd' ? 'etcd' : roleOf(words), command }
}

function roleOf(words: readonly string[]): ProcessRole {
  if (words.some(word => word.endsWith('/agent/main.ts'))) return 'daemon'
  return words.some(word => /\/agent\/guardian\/\w+\.ts$/.test(word)) ? 'guardian' : 'other'
}

function optionOf(words: readonly string[], name: string): string | undefined {
  const at = words.indexOf(name)
  return at < 0 ? undefined : words[at + 1]
}

/** The kernel's number of a namespace, by its name or by a process in it; undefined when gone. */
export function namespaceInode(of: string | number): number | undefined {
  const path = typeof of === 'number' ? `/proc/${of}/ns/net` : `${namespaceFolder}/${of}`
  try {
    return statSync(path).ino
  } catch {
    return undefined
  }
}

/** All processes that are in a network namespace now. */
export function processesIn(namespace: string): HostProcess[] {
  const inode = namespaceInode(namespace)
  if (inode === undefined) return []
  return readdirSync('/proc')
    .map(Number)
    .filter(pid => pid > 0 && namespaceInode(pid) === inode)
    .map(readProcess)
    .filter(found => found !== undefined)
}

const lookMs = 5
const goneMs = 10_000

/**
 * Ends everything in some namespaces as a power cut would: first nothing moves any more, so that
 * nobody sees another die and acts on it, then all are killed. Resolves when none is left.
 * @throws devFailed when something does not end
 */
export async function killAll(namespaces: readonly string[], clock: Clock): Promise<void> {
  const stopped = new Map<number, ProcessIdentity>()
  // Whoever forks while we look is found in the next round; a stopped process forks no more.
  for (let news = true; news; ) {
    news = false
    for (const found of namespaces.flatMap(processesIn)) {
      if (stopped.get(found.pid)?.startTicks === found.startTicks) continue
      signalProcess(found, 'SIGSTOP')
      stopped.set(found.pid, found)
      news = true
    }
  }
  for (const found of stopped.values()) signalProcess(found, 'SIGKILL')
  const deadlineMs = clock.monotonicMs() + goneMs
  for (;;) {
    const left = namespaces.flatMap(processesIn)
    if (left.length === 0 && ![...stopped.values()].some(isAlive)) return
    for (const found of left) signalProcess(found, 'SIGKILL')
    if (clock.monotonicMs() > deadlineMs) {
      const names = left.map(({ pid, command }) => `${pid} ${command}`).join('; ')
      throw failure('devFailed', { detail: `processes do not end: ${names}` })
    }
    await sleep(clock, lookMs)
  }
}
