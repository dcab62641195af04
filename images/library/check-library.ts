import { createHash } from 'node:crypto'
import Type from 'typebox'
import { Value } from 'typebox/value'
import { failure, isFailure, MacfleetError, messageOf } from '../../base/errors.ts'
import { digestOf } from '../layer-index.ts'
import { type LayoutBounds, readLayout, tagOf } from './layout.ts'
import { blobPath, type LibraryFile, readBlobWhole, readFileWhole } from './read-file.ts'

/** How far a check is. */
export interface CheckProgress {
  doneBytes: number
  totalBytes: number
}

/** What a check found. */
export interface LibraryCheck {
  /** Bytes that were read. */
  checkedBytes: number
  blobs: number
  /** What is missing or not what its digest names. */
  wrong: { blob: string; detail: string }[]
}

/** How a check is made. */
export interface CheckInit {
  limits: LayoutBounds & { imageManifestBytes: number }
  onProgress(progress: CheckProgress): void
}

/** A manifest names blobs, an index names manifests; nothing else is looked at. */
const namedSchema = Type.Object({
  digest: Type.String({ pattern: '^sha256:[0-9a-f]{64}$' }),
  size: Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER }),
})
const documentSchema = Type.Object({
  config: Type.Optional(namedSchema),
  layers: Type.Optional(Type.Array(namedSchema)),
  manifests: Type.Optional(Type.Array(namedSchema)),
})

/** Blobs of one image, all of its processors, that are looked at. */
const blobsMost = 65_536

/** Reads a disk whole: a file alone has no digest that it could be compared with. */
export async function checkFile(
  file: LibraryFile,
  onProgress: (progress: CheckProgress) => void,
  signal: AbortSignal,
): Promise<LibraryCheck> {
  const { sizeBytes: totalBytes } = await file.reader.look(file.path, signal)
  let doneBytes = 0
  for await (const piece of readFileWhole(file, signal)) {
    doneBytes += piece.length
    onProgress({ doneBytes, totalBytes })
  }
  return { checkedBytes: doneBytes, blobs: 1, wrong: [] }
}

/** Compares every blob of the images of a layout with its digest; all of them, or those chosen. */
export async function checkLayout(
  layout: LibraryFile,
  chosen: { tag?: string; digest?: string },
  { limits, onProgress }: CheckInit,
  signal: AbortSignal,
): Promise<LibraryCheck> {
  const { tag, digest } = chosen
  const entries = (await readLayout(layout, limits, signal)).filter(entry => {
    if (digest !== undefined) return entry.digest === digest
    return tag === undefined || tagOf(entry) === tag
  })
  if (entries.length === 0) {
    throw failure('notFound', { resource: 'library', name: layout.path.join('/') })
  }
  const wrong: LibraryCheck['wrong'] = []
  const blobs = new Map<string, number>()
  const documents = entries.map(entry => entry.digest)
  const seen = new Set(documents)
  for (let next = documents.pop(); next !== undefined; next = documents.pop()) {
    const found = await readDocument(layout, next, limits.imageManifestBytes, wrong, signal)
    for (const { digest: of } of found?.manifests ?? []) {
      if (!seen.has(of)) documents.push(of)
      seen.add(of)
    }
    const { config, layers = [] } = found ?? {}
    for (const { digest: of, size } of config ? [config, ...layers] : layers) blobs.set(of, size)
    if (blobs.size + seen.size > blobsMost) {
      throw failure('sourceFailed', { source: layout.name, detail: 'it names too many blobs' })
    }
  }
  const totalBytes = [...blobs.values()].reduce((sum, size) => sum + size, 0)
  let doneBytes = 0
  for (const [of, size] of blobs) {
    const detail = await checkBlob(layout, of, size, signal)
    if (detail !== undefined) wrong.push({ blob: of, detail })
    doneBytes += size
    onProgress({ doneBytes, totalBytes })
  }
  return { checkedBytes: doneBytes, blobs: blobs.size + seen.size, wrong }
}

async function readDocument(
  layout: LibraryFile,
  digest: string,
  limitBytes: number,
  wrong: LibraryCheck['wrong'],
  signal: AbortSignal,
) {
  try {
    const bytes = await readBlobWhole(layout, digest, limitBytes, signal)
    const document: unknown = JSON.parse(bytes.toString('utf8'))
    if (Value.Check(documentSchema, document)) return document
    wrong.push({ blob: digest, detail: 'it is no manifest' })
  } catch (error) {
    signal.throwIfAborted()
    if (!(error instanceof MacfleetError) && !(error instanceof SyntaxError)) throw error
    wrong.push({ blob: digest, detail: messageOf(error) })
  }
  return undefined
}

/** @returns what is wrong with it */
async function checkBlob(
  layout: LibraryFile,
  digest: string,
  sizeBytes: number,
  signal: AbortSignal,
): Promise<string | undefined> {
  const hash = createHash('sha256')
  let doneBytes = 0
  try {
    const file = { ...layout, path: blobPath(layout.path, digest) }
    for await (const piece of readFileWhole(file, signal)) {
      hash.update(piece)
      doneBytes += piece.length
    }
  } catch (error) {
    if (isFailure(error, 'notFound')) return 'it is missing'
    throw error
  }
  if (doneBytes !== sizeBytes) return `it has ${doneBytes} bytes where ${sizeBytes} are named`
  return digestOf(hash.digest()) === digest ? undefined : 'its bytes are not what its name says'
}
