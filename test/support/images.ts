import { createHash } from 'node:crypto'
import { closeSync, ftruncateSync, openSync, writeFileSync, writeSync } from 'node:fs'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'
import { systemClock } from '../../base/clock.ts'
import { runCommand } from '../../base/command.ts'
import { defaultLimits, type Limits } from '../../base/limits.ts'
import { silentLog } from '../../base/log.ts'
import { createSeededRandom, systemRandom } from '../../base/random.ts'
import { type ImageStore, openImageStore } from '../../images/image-store.ts'
import { sandboxIdentity } from './sandbox-identity.ts'

/** What a test may choose about a store. */
export interface TestStoreInit {
  limits?: Partial<Limits>
  rebuildIndex?: boolean
}

/** Opens a store as the daemon does; it is closed when the test ends. */
export async function openTestStore(folder: string, init: TestStoreInit = {}): Promise<ImageStore> {
  const limits = { ...defaultLimits, imageReserveBytes: 0, ...init.limits }
  const store = await openImageStore(
    { folder, limits, sandboxIdentity, rebuildIndex: init.rebuildIndex },
    { clock: systemClock, log: silentLog, random: systemRandom, run: runCommand },
  )
  onTestFinished(() => store.close())
  return store
}

/** The names in a store's folder that stand for images, and those of imports under way. */
export async function storeFolders(
  folder: string,
): Promise<{ images: string[]; incoming: string[] }> {
  const names = await readdir(folder)
  return {
    images: names.filter(name => /^[0-9a-f]{64}$/.test(name)),
    incoming: await readdir(join(folder, 'incoming')),
  }
}

/** Bytes that look random and are the same for the same seed. */
export function noise(lengthBytes: number, seed = 1): Buffer {
  const block = createSeededRandom(seed).bytes(4096)
  return Buffer.concat(
    Array.from({ length: Math.ceil(lengthBytes / 4096) }, (_, at) => {
      const numbered = Buffer.from(block)
      numbered.writeUInt32LE(at, 8)
      return numbered
    }),
  ).subarray(0, lengthBytes)
}

/** Writes a sparse file: `parts` at their offsets, holes elsewhere. */
export function writeSparseFile(path: string, sizeBytes: number, parts: [number, Buffer][]): void {
  writeFileSync(path, '')
  const file = openSync(path, 'r+')
  ftruncateSync(file, sizeBytes)
  for (const [offset, bytes] of parts) writeSync(file, bytes, 0, bytes.length, offset)
  closeSync(file)
}

/** The digest of some bytes. */
export function digestOfBytes(bytes: Uint8Array): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`
}
