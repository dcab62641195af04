import { readdirSync, readFileSync } from 'node:fs'
import { type Clock, sleep } from '../../base/clock.ts'
import {
  identify,
  isAlive,
  type ProcessIdentity,
  signalProcess,
} from '../../base/process-identity.ts'
import type { RegistryEntry } from './registry.ts'

/** Every process of the guardian has this in its environment: data folder and name. */
export const markName = 'MACFLEET_GUARDED'

/** The mark of one process. */
export function markOf(dataFolder: string, name: string): string {
  return `${dataFolder}/${name}`
}

const pollMs = 20

/**
 * Kills what an earlier guardian left alive. Its processes die with it (pdeathsig), except one
 * that it was just starting: between the fork and setpriv's prctl, that one may outlive it, and
 * then its pid is in no entry and its mark has to be looked for.
 * @returns whether all were gone within `timeoutMs`
 */
export async function killOrphans(
  entries: readonly RegistryEntry[],
  init: { dataFolder: string; bootId: string; timeoutMs: number },
  clock: Clock,
): Promise<boolean> {
  const orphans = entries
    .filter(entry => entry.ended === undefined && entry.bootId === init.bootId)
    .flatMap(entry => entry.identity ?? findMarked(markOf(init.dataFolder, entry.name)))
  for (const orphan of orphans) signalProcess(orphan, 'SIGKILL')
  const deadlineMs = clock.monotonicMs() + init.timeoutMs
  while (orphans.some(isAlive)) {
    if (clock.monotonicMs() >= deadlineMs) return false
    await sleep(clock, pollMs)
  }
  return true
}

/** All processes with a mark, by what /proc says of their environment. */
export function findMarked(mark: string): ProcessIdentity[] {
  return readdirSync('/proc')
    .filter(file => /^\d+$/.test(file))
    .filter(pid => readEnvironment(pid).includes(`${markName}=${mark}`))
    .flatMap(pid => identify(Number(pid)) ?? [])
}

function readEnvironment(pid: string): string[] {
  try {
    return readFileSync(`/proc/${pid}/environ`, 'utf8').split('\0')
  } catch {
    // It has ended, or belongs to somebody whom we could not have started.
    return []
  }
}
