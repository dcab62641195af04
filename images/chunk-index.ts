import { rename, rm } from 'node:fs/promises'
import { Level } from 'level'
import { failure, messageOf } from '../base/errors.ts'
import { makeFolder } from '../base/files.ts'
import type { Log } from '../base/log.ts'
import { digestOf, type Extent, hashOf, type LayerChunk } from './layer-index.ts'

/** Where a chunk's bytes are: in the disk of that image, at these places, one after another. */
export interface IndexedChunk {
  image: string
  extents: Extent[]
}

/**
 * Which chunks this host holds, and where (LevelDB). Made from the images' own folders and never
 * the truth: it can be thrown away and made again.
 */
export interface ChunkIndex {
  /** The images with chunks in the index, and whether they are all in. */
  images(): Promise<Map<string, 'whole' | 'partial'>>
  /** Enters an image's chunks; it counts as whole only when the last is written durably. */
  add(image: string, chunks: readonly LayerChunk[]): Promise<void>
  /** Enters some chunks of an image that is not here whole. */
  note(image: string, chunks: readonly LayerChunk[]): Promise<void>
  /** Takes out an image's chunks, those given or, without them, whichever are found. */
  remove(image: string, chunks: readonly LayerChunk[] | undefined): Promise<void>
  /** One place of a chunk, in an image that is accepted; undefined when there is none. */
  find(chunk: string, accepts: (image: string) => boolean): Promise<IndexedChunk | undefined>
  close(): Promise<void>
}

/** How the index is opened. */
export interface ChunkIndexInit {
  folder: string
  /** An index that is damaged is put aside (`FOLDER.damaged`) and an empty one made. */
  rebuild: boolean
}

const batchSize = 1000
const imagePrefix = 'image!'
const chunkPrefix = 'chunk!'
/** Sorts after every key of a prefix: '"' follows '!'. */
const endOf = (prefix: string) => `${prefix.slice(0, -1)}"`

/**
 * Opens the index; only one process can (LevelDB's lock).
 * @throws storeLocked, imageIndexCorrupt
 */
export async function openChunkIndex(init: ChunkIndexInit, log: Log): Promise<ChunkIndex> {
  const { folder } = init
  makeFolder(folder)
  let database = new Level<string, string>(folder)
  try {
    await database.open()
  } catch (error) {
    const code = causeCode(error)
    if (code === 'LEVEL_LOCKED') throw failure('storeLocked', { folder }, { cause: error })
    if (!init.rebuild) throw damaged(folder, error)
    log.warn({ folder }, 'the index of the images is damaged: it is put aside and made anew')
    await rm(`${folder}.damaged`, { recursive: true, force: true })
    await rename(folder, `${folder}.damaged`)
    makeFolder(folder)
    database = new Level<string, string>(folder)
    await database.open()
  }
  return createChunkIndex(folder, database)
}

function createChunkIndex(folder: string, database: Level<string, string>): ChunkIndex {
  const guarded = async <T>(work: () => Promise<T>): Promise<T> => {
    try {
      return await work()
    } catch (error) {
      if (causeCode(error) === 'LEVEL_CORRUPTION') throw damaged(folder, error)
      // LevelDB has no code for it, only the system's words.
      if (!messageOf(error).includes('No space left on device')) throw error
      const detail = 'no space left for the index of chunks'
      throw failure('diskFull', { folder, detail }, { cause: error })
    }
  }
  return {
    images: () => guarded(() => imagesIn(database)),
    add: (image, chunks) =>
      guarded(async () => {
        await enterChunks(database, image, chunks)
        // Durable together with all before it: LevelDB writes one log, in order.
        await database.put(imagePrefix + image, 'whole', { sync: true })
      }),
    note: (image, chunks) => guarded(() => enterChunks(database, image, chunks)),
    remove: (image, chunks) => guarded(() => removeImage(database, image, chunks)),
    find: (chunk, accepts) => guarded(() => findChunk(database, chunk, accepts)),
    close: () => database.close(),
  }
}

async function imagesIn(
  database: Level<string, string>,
): Promise<Map<string, 'whole' | 'partial'>> {
  const entries = await database.iterator({ gte: imagePrefix, lt: endOf(imagePrefix) }).all()
  return new Map(
    entries.map(([key, value]) => [
      key.slice(imagePrefix.length),
      value === 'whole' ? 'whole' : 'partial',
    ]),
  )
}

async function enterChunks(
  database: Level<string, string>,
  image: string,
  chunks: readonly LayerChunk[],
): Promise<void> {
  await database.put(imagePrefix + image, 'partial')
  for (let at = 0; at < chunks.length; at += batchSize) {
    const some = chunks.slice(at, at + batchSize)
    await database.batch(
      some.map(({ digest, extents }) => ({
        type: 'put' as const,
        key: chunkKey(digest, image),
        value: JSON.stringify(extents.map(extent => [extent.offsetBytes, extent.lengthBytes])),
      })),
    )
  }
}

async function removeImage(
  database: Level<string, string>,
  image: string,
  chunks: readonly LayerChunk[] | undefined,
): Promise<void> {
  let keys: string[] = []
  const flush = async () => {
    await database.batch(keys.map(key => ({ type: 'del' as const, key })))
    keys = []
  }
  for await (const key of chunks ? keysOf(chunks, image) : keysIn(database, image)) {
    keys.push(key)
    if (keys.length >= batchSize) await flush()
  }
  await flush()
  await database.del(imagePrefix + image, { sync: true })
}

function* keysOf(chunks: readonly LayerChunk[], image: string): Generator<string> {
  for (const { digest } of chunks) yield chunkKey(digest, image)
}

async function* keysIn(database: Level<string, string>, image: string): AsyncGenerator<string> {
  const end = `!${hashText(image)}`
  for await (const key of database.keys({ gte: chunkPrefix, lt: endOf(chunkPrefix) })) {
    if (key.endsWith(end)) yield key
  }
}

async function findChunk(
  database: Level<string, string>,
  chunk: string,
  accepts: (image: string) => boolean,
): Promise<IndexedChunk | undefined> {
  const prefix = `${chunkPrefix}${hashText(chunk)}!`
  for await (const [key, value] of database.iterator({ gte: prefix, lt: endOf(prefix) })) {
    const image = digestOf(Buffer.from(key.slice(prefix.length), 'hex'))
    if (!accepts(image)) continue
    const pairs: [number, number][] = JSON.parse(value)
    return {
      image,
      extents: pairs.map(([offsetBytes, lengthBytes]) => ({ offsetBytes, lengthBytes })),
    }
  }
  return undefined
}

function chunkKey(chunk: string, image: string): string {
  return `${chunkPrefix}${hashText(chunk)}!${hashText(image)}`
}

function hashText(digest: string): string {
  return hashOf(digest).toString('hex')
}

function causeCode(error: unknown): string | undefined {
  if (!(error instanceof Error)) return undefined
  if (error.cause !== undefined) return causeCode(error.cause)
  return 'code' in error ? String(error.code) : undefined
}

function damaged(folder: string, cause: unknown): Error {
  const reason = cause instanceof Error && cause.cause instanceof Error ? cause.cause : cause
  const detail = reason instanceof Error ? reason.message : String(reason)
  const advice = 'No image is lost: restart the daemon, which makes the index anew from the images'
  return failure('imageIndexCorrupt', { folder, detail, advice }, { cause })
}
