import { constants } from 'node:fs'
import { type Clock, preciseTimestamp } from '../../base/clock.ts'
import { messageOf } from '../../base/errors.ts'
import type { Limits } from '../../base/limits.ts'
import type { Log } from '../../base/log.ts'
import { openGuestFile } from '../../kvm/guest-file.ts'
import { killOrphans } from './orphans.ts'
import { writeExitRecord } from './processes.ts'
import type { Registry, RegistryEntry } from './registry.ts'
import { readableText } from './tail.ts'

/** What a new guardian finds. */
export interface RecoveryInit {
  dataFolder: string
  bootId: string
  limits: Limits
}

/** What recovery needs. */
export interface RecoveryComponents {
  clock: Clock
  log: Log
  registry: Registry
}

const killTimeoutMs = 10_000

/**
 * Brings what an earlier guardian left to an end: processes that still live are killed, those
 * whose end nobody saw are recorded as `guardianLost`.
 * @returns all entries, every one ended
 */
export async function recover(
  init: RecoveryInit,
  components: RecoveryComponents,
): Promise<RegistryEntry[]> {
  const { clock, log, registry } = components
  const entries = registry.readAll()
  const gone = await killOrphans(entries, { ...init, timeoutMs: killTimeoutMs }, clock)
  if (!gone) throw new Error('processes of an earlier guardian can not be killed')
  const recovered: RegistryEntry[] = []
  for (const entry of entries) {
    recovered.push(entry.ended === undefined ? await endLost(entry, init, components) : entry)
  }
  if (recovered.length > 0) {
    log.info(
      { names: recovered.map(entry => entry.name) },
      'processes of an earlier guardian ended',
    )
  }
  return recovered
}

async function endLost(
  entry: RegistryEntry,
  { limits }: RecoveryInit,
  { clock, log, registry }: RecoveryComponents,
): Promise<RegistryEntry> {
  const stderrTail = await readTail(entry.stderrPath, limits.lastWordsTailBytes)
  const endedAt = preciseTimestamp(clock)
  const ended = { reason: 'guardianLost', code: null, signal: null, endedAt, stderrTail } as const
  const lost = { ...entry, ended }
  registry.write(lost)
  if (entry.exitPath !== '') {
    await writeExitRecord(entry.exitPath, ended).catch(error =>
      log.warn({ name: entry.name, error: messageOf(error) }, 'an end could not be recorded'),
    )
  }
  return lost
}

/** The end of a file in a folder that is not ours alone; empty when it can't be had. */
async function readTail(path: string, limitBytes: number): Promise<string> {
  try {
    const file = await openGuestFile(path, constants.O_RDONLY)
    try {
      const { size } = await file.stat()
      const bytes = Buffer.alloc(Math.min(size, limitBytes))
      const { bytesRead } = await file.read(bytes, 0, bytes.length, size - bytes.length)
      return readableText(bytes.subarray(0, bytesRead))
    } finally {
      await file.close()
    }
  } catch {
    return ''
  }
}
