import { createHash } from 'node:crypto'
import { type FileHandle, open, rename, rm } from 'node:fs/promises'
import { dirname } from 'node:path'
import { failure } from '../../base/errors.ts'
import { syncFolder } from '../../base/files.ts'
import type { EtcdConnection } from './connection.ts'

/** etcd sends the SHA-256 of the database behind it. */
const digestBytes = 32
/** Pages of the database; what was sent ends with a whole one. */
const sectorBytes = 512

/** Whose database goes where. */
export interface SnapshotInit {
  endpoint: string
  path: string
  signal: AbortSignal
}

/**
 * Streams the database of one member into a file that appears whole, verified and synced.
 * @throws etcdSnapshotTorn
 */
export async function writeSnapshot(
  connection: EtcdConnection,
  { endpoint, path, signal }: SnapshotInit,
): Promise<{ bytes: number }> {
  const temporary = `${path}.tmp`
  // What an earlier attempt left there is worth nothing.
  await rm(temporary, { force: true })
  try {
    const handle = await open(temporary, 'wx', 0o600)
    let bytes: number
    try {
      bytes = await receive(connection, { endpoint, signal }, handle)
      await handle.sync()
    } finally {
      await handle.close()
    }
    await rename(temporary, path)
    await syncFolder(dirname(path))
    return { bytes }
  } catch (error) {
    await rm(temporary, { force: true })
    throw error
  }
}

async function receive(
  connection: EtcdConnection,
  { endpoint, signal }: Omit<SnapshotInit, 'path'>,
  handle: FileHandle,
): Promise<number> {
  const torn = (detail: string): Error => failure('etcdSnapshotTorn', { endpoint, detail })
  signal.throwIfAborted()
  const exchange = await connection.exchangeAt(endpoint, 'Maintenance.Snapshot')
  signal.addEventListener('abort', exchange.cancel, { once: true })
  const hash = createHash('sha256')
  let bytes = 0
  let tail = Buffer.alloc(0)
  try {
    exchange.write({})
    exchange.end()
    for await (const { blob } of exchange.messages()) {
      await handle.writeFile(blob)
      bytes += blob.length
      const all = Buffer.concat([tail, blob])
      const known = Math.max(0, all.length - digestBytes)
      hash.update(all.subarray(0, known))
      tail = all.subarray(known)
    }
  } catch (error) {
    signal.throwIfAborted()
    throw torn(error instanceof Error ? error.message : String(error))
  } finally {
    signal.removeEventListener('abort', exchange.cancel)
  }
  if (bytes % sectorBytes !== digestBytes) throw torn(`it ended after ${bytes} bytes`)
  if (!hash.digest().equals(tail)) throw torn('its digest is not that of its content')
  return bytes
}
