import { createHash } from 'node:crypto'
import { failure, MacfleetError, messageOf } from '../../base/errors.ts'
import type { Limits } from '../../base/limits.ts'
import { endWith } from '../byte-source.ts'
import type { StatedFormat } from '../inspect-header.ts'
import { digestOf } from '../layer-index.ts'
import { verified } from '../verified-stream.ts'
import type { ContainerImage, ContainerLayer } from './container-image.ts'
import { isDiskName, meaningOf } from './disk-folder.ts'
import { type ArchiveEntry, readArchive } from './tar-entries.ts'
import { unpack } from './unpack.ts'

/** How much a wrapped disk may ask of whoever reads it. */
export type WrappedBounds = Pick<
  Limits,
  'diskBytes' | 'wrappedEntries' | 'wrappedHeaderBytes' | 'wrappedRatio'
>

/** Where the layers of a container image come from. */
export interface WrappedSource {
  /** For errors: `registry.example.test/team/disk:1`. */
  name: string
  /** A blob's bytes, not yet compared with its digest. */
  openBlob(digest: string, signal: AbortSignal): AsyncIterable<Uint8Array>
}

/** A disk that was found in a container image. */
export interface WrappedDisk {
  /** Its name in /disk. */
  name: string
  sizeBytes: number
  /** What its name says of it; `auto` where that is nothing. */
  format: StatedFormat
  /**
   * Its bytes. Ends well only if all layers are what their digests say and hold no other disk, so
   * they must not count before. To be read once, to the end, or closed.
   * @throws wrappedDiskRefused, contentDiffers, what the source throws, the signal's reason
   */
  stream: AsyncIterable<Uint8Array>
  close(): Promise<void>
}

/** What has been seen so far, of all layers from the top down. */
interface Search {
  source: WrappedSource
  bounds: WrappedBounds
  signal: AbortSignal
  entries: number
  /** Names in /disk that layers above have or hide. */
  hidden: Set<string>
  allHidden: boolean
  /** What is in /disk and is no disk, for the error. */
  others: string[]
  disk: string | undefined
}

/** Things in /disk that an error names, and that are remembered at all. */
const othersNamed = 8
const hiddenNames = 1024

/**
 * Finds the one disk of a container image: a regular file /disk/NAME.qcow2, .raw or .img, as the
 * layers show it together. Layers are read from the top down, each once, as streams.
 * @throws wrappedDiskRefused when there is none; what the stream below throws
 */
export async function openWrappedDisk(
  image: ContainerImage,
  source: WrappedSource,
  { bounds, signal }: { bounds: WrappedBounds; signal: AbortSignal },
): Promise<WrappedDisk> {
  const ended = new AbortController()
  const search: Search = {
    ...{ source, bounds, signal: AbortSignal.any([signal, ended.signal]) },
    ...{ entries: 0, hidden: new Set<string>(), allHidden: false, others: [], disk: undefined },
  }
  const found = findDisks(search, image)
  const close = async () => {
    ended.abort(new Error('nobody reads it any more'))
    await found.return(undefined).catch(() => {})
  }
  try {
    const first = await found.next()
    if (first.done) throw refused(search, describeNone(search))
    const { name, sizeBytes, content } = first.value
    const format = name.endsWith('.qcow2') ? 'qcow2' : 'auto'
    return { name, sizeBytes, format, stream: readDisk(found, content, close), close }
  } catch (error) {
    await close()
    throw error
  }
}

/** A regular file that counts as the disk, with the bytes that follow it in the archive. */
interface FoundDisk {
  name: string
  sizeBytes: number
  content: AsyncIterable<Uint8Array>
}

async function* readDisk(
  found: AsyncGenerator<FoundDisk, void>,
  content: AsyncIterable<Uint8Array>,
  close: () => Promise<void>,
): AsyncGenerator<Uint8Array> {
  try {
    yield* content
    // What lies behind it and below it: digests, and disks that must not be.
    await found.next()
  } finally {
    await close()
  }
}

/** Yields the disk, once; fails at a second one. */
async function* findDisks(search: Search, image: ContainerImage): AsyncGenerator<FoundDisk, void> {
  for (const layer of [...image.layers].reverse()) {
    const below: string[] = []
    let hidesAll = false
    const own = new Set<string>()
    for await (const entry of entriesOf(search, layer)) {
      const meaning = meaningOf(entry)
      if (meaning.kind === 'nothing') continue
      if (meaning.kind === 'trick') throw refused(search, `an entry is named ${quote(entry.name)}`)
      if (meaning.kind === 'hides') {
        if (meaning.name === undefined) hidesAll = true
        else below.push(meaning.name)
      } else {
        if (own.has(meaning.name)) throw refused(search, `${quote(meaning.name)} is there twice`)
        own.add(meaning.name)
        if (isSeen(search, entry, meaning.name)) yield takeDisk(search, entry, meaning.name)
      }
      if (own.size + below.length + search.hidden.size > hiddenNames) {
        throw refused(search, `its folder /disk has over ${hiddenNames} names`)
      }
    }
    search.allHidden ||= hidesAll
    for (const name of [...own, ...below]) search.hidden.add(name)
  }
}

/** Whether a member of /disk is a disk that no layer above hides; notes it when it is none. */
function isSeen(search: Search, { type }: ArchiveEntry, name: string): boolean {
  if (search.allHidden || search.hidden.has(name)) return false
  if (type === 'file' && isDiskName(name)) return true
  if (search.others.length < othersNamed) search.others.push(`${quote(name)} (${says[type]})`)
  return false
}

const says: Record<ArchiveEntry['type'], string> = {
  file: 'a file of another name',
  directory: 'a folder',
  link: 'a hard link',
  symlink: 'a symbolic link',
  sparse: 'a file with holes left out',
  other: 'a device, a pipe or something else',
}

function takeDisk(search: Search, entry: ArchiveEntry, name: string): FoundDisk {
  if (search.disk !== undefined) {
    throw refused(search, `it holds two disks, ${quote(search.disk)} and ${quote(name)}`)
  }
  search.disk = name
  const { sizeBytes, content } = entry
  const { diskBytes } = search.bounds
  if (sizeBytes > diskBytes) {
    throw refused(search, `${quote(name)} has ${sizeBytes} bytes, more than ${diskBytes}`)
  }
  return { name, sizeBytes, content }
}

function describeNone({ others }: Search): string {
  if (others.length === 0) return 'it has nothing in /disk'
  return `/disk has only ${others.join(', ')}`
}

/** Names are somebody's bytes: an error shows them short and on one line. */
function quote(name: string): string {
  return JSON.stringify(name.length > 64 ? `${name.slice(0, 64)}...` : name)
}

/** The entries of one layer; ends well only when the layer is what its digests say. */
async function* entriesOf(search: Search, layer: ContainerLayer): AsyncGenerator<ArchiveEntry> {
  const { source, bounds, signal } = search
  const onEntry = () => {
    signal.throwIfAborted()
    if (++search.entries > bounds.wrappedEntries) {
      throw refused(search, `it has over ${bounds.wrappedEntries} files and folders`)
    }
  }
  const { wrappedHeaderBytes } = bounds
  yield* readArchive(plainOf(search, layer), source.name, { wrappedHeaderBytes, onEntry })
}

/** A little may be packed as well as anything: an empty disk, for example. */
const freeBytes = 64 * 1024 * 1024

/** The archive of a layer, unpacked; bounded by what was sent of it, and proven at its end. */
async function* plainOf(search: Search, layer: ContainerLayer): AsyncGenerator<Uint8Array> {
  const { source, bounds, signal } = search
  const { digest, sizeBytes, plainDigest } = layer
  let packedBytes = 0
  const count = async function* (stream: AsyncIterable<Uint8Array>) {
    for await (const part of stream) {
      packedBytes += part.length
      yield part
    }
  }
  const blob = endWith(signal, source.openBlob(digest, signal))
  const sent = verified(blob, { digest, sizeBytes, source: source.name })
  const hash = createHash('sha256')
  let plainBytes = 0
  try {
    for await (const part of unpack(count(sent))) {
      plainBytes += part.length
      if (plainBytes > freeBytes + packedBytes * bounds.wrappedRatio) {
        throw refused(search, `${packedBytes} packed bytes become over ${plainBytes}`)
      }
      hash.update(part)
      yield part
    }
  } catch (error) {
    signal.throwIfAborted()
    if (error instanceof MacfleetError || !isUnpacking(error)) throw error
    throw refused(search, `a layer is damaged (${messageOf(error)})`)
  }
  const found = digestOf(hash.digest())
  if (found === plainDigest) return
  const detail = `${found} in layer ${digest}, where its config names ${plainDigest}`
  throw failure('contentDiffers', { source: source.name, detail })
}

function isUnpacking(error: unknown): boolean {
  return error instanceof Error && 'code' in error && /^(Z_|ZSTD_)/.test(String(error.code))
}

function refused({ source }: Search, detail: string): MacfleetError {
  return failure('wrappedDiskRefused', { source: source.name, detail })
}
