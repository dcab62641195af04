import { link, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { timestamp } from '../base/clock.ts'
import { failure } from '../base/errors.ts'
import { isErrno, syncFolder } from '../base/files.ts'
import { decodeConfig } from './decode-config.ts'
import { nameDiskFull } from './disk-space.ts'
import { encodeConfig, imageDigest } from './encode-config.ts'
import { findChunk, noteServable } from './find-chunk.ts'
import { imageFiles } from './image-files.ts'
import { allocatedBytes, sealImageFolder } from './image-folder.ts'
import type { ImageConfig } from './image-record.ts'
import { type BlobKind, blobsOf, type FillingFolder } from './partial/filling-shelf.ts'
import { type PrepareComponents, runPreparation } from './partial/prepare.ts'
import type { PrepareTask } from './partial/prepare-messages.ts'
import { admitWork, type StoreContext, whileCopied } from './store-context.ts'

/** What an image is said to be, by whoever has it. Nothing of it is trusted. */
export interface ImageContent {
  config: ImageConfig
  /** The encoded indexes of its layers, base first. */
  layers: readonly Uint8Array[]
  /** Where a registry has each layer's chunks (format/locations.ts); kept for a later push. */
  locations?: readonly (Uint8Array | undefined)[]
  /** Where it comes from, for people; at most 1024 characters. */
  origin?: string
}

/** Begins an image, or takes it up. @returns its digest @throws as ImageStore.begin */
export async function beginImage(
  context: StoreContext,
  content: ImageContent,
  signal: AbortSignal | undefined,
): Promise<string> {
  // Whoever wrote it: what we name an image by is what we read ourselves.
  const config = decodeConfig(Buffer.from(encodeConfig(content.config)))
  const digest = imageDigest(config)
  if (context.shelf.images.has(digest) || context.filling.images.has(digest)) return digest
  const underWay = context.begins.get(digest)
  if (underWay !== undefined) {
    await underWay.catch(() => {})
    signal?.throwIfAborted()
    return await beginImage(context, content, signal)
  }
  const limit = context.init.limits.imageFillings
  if (context.begins.size >= limit) throw failure('tooMany', { limit, what: 'images begun' })
  const work = admitWork(context, signal, ended =>
    makeFilling(context, digest, { ...content, config }, ended),
  )
  context.begins.set(digest, work)
  try {
    await work
  } finally {
    context.begins.delete(digest)
  }
  return digest
}

async function makeFilling(
  context: StoreContext,
  digest: string,
  content: ImageContent,
  signal: AbortSignal,
): Promise<void> {
  const { shelf, filling, turns, init } = context
  const incoming = shelf.makeIncoming()
  try {
    const { sealed, servable } = await makeParts(context, incoming, content, signal)
    await turns.take(() => filling.put(digest, sealed))
    await noteServable(context, digest, servable)
  } catch (error) {
    signal.throwIfAborted()
    throw nameDiskFull(error, init.folder)
  } finally {
    await rm(incoming, { recursive: true, force: true })
  }
}

/** Makes the folder of an image out of what is here. */
export async function makeParts(
  context: StoreContext,
  path: string,
  { config, layers, locations, origin }: ImageContent,
  signal: AbortSignal,
): Promise<{ sealed: FillingFolder; servable: Uint8Array[] }> {
  const now = timestamp(context.components.clock)
  const times = { importedAt: now, lastUsedAt: now }
  const said = origin === undefined ? {} : { origin }
  const state = { format: 'raw' as const, ...times, pinned: false, users: [], ...said }
  if (layers.length !== config.layers.length) {
    throw failure('imageConfigInvalid', { detail: 'it has another number of layers' })
  }
  const sealed = await sealImageFolder(path, { config, state, layers, locations })
  const base = findBase(context, config)
  const { diskBytes, layerChunks } = context.init.limits
  const task: PrepareTask = {
    folder: path,
    config,
    bounds: { diskBytes, layerChunks },
    work: 'prepare',
    ...(base ? { base: base.task } : {}),
  }
  const prepare = () => runPreparation(task, preparation(context, path), signal)
  const prepared = await (base ? whileCopied(context, base.digest, prepare) : prepare())
  const blobs = await linkBlobs(context, config, path)
  await syncFolder(path)
  const { localBytes, servable } = prepared
  const takenBytes = await allocatedBytes(path)
  return { sealed: { ...sealed, allocatedBytes: takenBytes, localBytes, blobs }, servable }
}

/** What a thread that makes a disk asks for. */
export function preparation(context: StoreContext, path: string): PrepareComponents {
  return {
    find: digests =>
      Promise.all(
        digests.map(async digest => {
          const chunk = await findChunk(context, digest)
          return chunk && { path: chunk.path, extents: chunk.extents }
        }),
      ),
    demand: neededBytes => context.tools.space.demand(neededBytes),
    async punch(extents) {
      const disk = join(path, imageFiles.disk)
      try {
        for (const { offsetBytes, lengthBytes } of extents) {
          const place = ['--offset', `${offsetBytes}`, '--length', `${lengthBytes}`]
          const args = ['--punch-hole', '--keep-size', ...place, disk]
          await context.components.run('fallocate', args, { timeoutMs: punchMs })
        }
        return true
      } catch {
        return false
      }
    },
  }
}

const punchMs = 60_000

/** The image here that has the most layers in common, from the base on. */
function findBase({ shelf }: StoreContext, config: ImageConfig) {
  let best: { digest: string; task: NonNullable<PrepareTask['base']> } | undefined
  for (const [digest, image] of shelf.images) {
    const { layers } = image.config
    const differing = layers.findIndex((layer, at) => layer.digest !== config.layers[at]?.digest)
    const sharedLayers = differing < 0 ? layers.length : differing
    if (sharedLayers <= (best?.task.sharedLayers ?? 0)) continue
    best = { digest, task: { folder: image.path, config: image.config, sharedLayers } }
  }
  return best
}

async function linkBlobs(
  { shelf, filling }: StoreContext,
  config: ImageConfig,
  path: string,
): Promise<Set<BlobKind>> {
  const linked = new Set<BlobKind>()
  const others = [...shelf.images.values()]
  for (const image of filling.images.values()) {
    const names = [...blobsOf(image.config)].filter(([kind]) => !image.blobs.has(kind))
    if (names.length === 0) others.push(image)
  }
  for (const [kind, digest] of blobsOf(config)) {
    const same = others.find(other => blobsOf(other.config).get(kind) === digest)
    if (same === undefined) continue
    try {
      await link(join(same.path, imageFiles[kind]), join(path, imageFiles[kind]))
      linked.add(kind)
    } catch (error) {
      // It went away meanwhile, or has as many names as a file can have: it comes from elsewhere.
      if (!isErrno(error, 'ENOENT') && !isErrno(error, 'EMLINK')) throw error
    }
  }
  return linked
}
