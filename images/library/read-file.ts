import { createHash } from 'node:crypto'
import { failure, isFailure } from '../../base/errors.ts'
import { digestOf } from '../layer-index.ts'
import type { FolderReader } from './folder-reader.ts'

/** Bytes that one call reads: the mount's own read-ahead does the rest. */
const pieceBytes = 4 * 1024 * 1024

/** Where a file is and how its library is called. */
export interface LibraryFile {
  reader: FolderReader
  /** For errors: `library /srv/images`. */
  name: string
  path: string[]
}

/**
 * A file from its begin to its end, as it is now.
 * @throws contentDiffers when it was changed meanwhile, and what the reader does
 */
export async function* readFileWhole(
  { reader, name, path }: LibraryFile,
  signal: AbortSignal,
): AsyncGenerator<Buffer> {
  const before = await reader.look(path, signal)
  let doneBytes = 0
  while (doneBytes < before.sizeBytes) {
    const length = Math.min(pieceBytes, before.sizeBytes - doneBytes)
    const piece = await reader.read(path, doneBytes, length, signal)
    if (piece.length === 0) break
    doneBytes += piece.length
    yield piece
  }
  const after = await reader.look(path, signal).catch(error => {
    if (isFailure(error, 'notFound')) return undefined
    throw error
  })
  const isSame = after?.sizeBytes === doneBytes && after.changed === before.changed
  if (isSame && doneBytes === before.sizeBytes) return
  const detail = `${path.join('/')} was changed while it was read`
  throw failure('contentDiffers', { source: name, detail })
}

/** Where a blob lies in an OCI layout. */
export function blobPath(layout: readonly string[], digest: string): string[] {
  return [...layout, 'blobs', 'sha256', digest.slice('sha256:'.length)]
}

/**
 * A blob that is small enough to be had whole, compared with its digest.
 * @throws sourceFailed when it is larger or not what its name says, and what the reader does
 */
export async function readBlobWhole(
  { reader, name, path: layout }: LibraryFile,
  digest: string,
  limitBytes: number,
  signal: AbortSignal,
): Promise<Buffer> {
  const path = blobPath(layout, digest)
  const bad = (detail: string) =>
    failure('sourceFailed', { source: name, detail: `blob ${path.join('/')} ${detail}` })
  const { sizeBytes } = await reader.look(path, signal)
  if (sizeBytes > limitBytes) throw bad(`has more than ${limitBytes} bytes`)
  const hash = createHash('sha256')
  const parts: Buffer[] = []
  for (let at = 0; at < sizeBytes; ) {
    const piece = await reader.read(path, at, Math.min(pieceBytes, sizeBytes - at), signal)
    if (piece.length === 0) throw bad('became shorter')
    hash.update(piece)
    parts.push(piece)
    at += piece.length
  }
  if (digestOf(hash.digest()) !== digest) throw bad('is not what its name says')
  return Buffer.concat(parts)
}
