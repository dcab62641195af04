import { type Extract, extract } from 'tar-stream'
import { failure, messageOf } from '../../base/errors.ts'
import type { Limits } from '../../base/limits.ts'

/** What an entry of an archive is; `other` are devices, pipes and what is not known. */
export type EntryType = 'file' | 'directory' | 'link' | 'symlink' | 'sparse' | 'other'

/** One entry of an archive. Its name is whatever somebody wrote. */
export interface ArchiveEntry {
  name: string
  type: EntryType
  sizeBytes: number
  /** To be read, or left, before the next entry is asked for. */
  content: AsyncIterable<Uint8Array>
}

/** How much an archive may ask of whoever reads it. */
export interface ArchiveBounds extends Pick<Limits, 'wrappedHeaderBytes'> {
  /** Called for each entry; may refuse, by throwing. */
  onEntry(): void
}

/** Parts as large as this are handed to the parser, so that what it holds is bounded. */
const partBytes = 64 * 1024

/**
 * Reads an archive (tar) as a stream, entry by entry.
 * @throws wrappedDiskRefused for one that is damaged, cut short, or says too much between entries;
 * what the stream throws
 */
export async function* readArchive(
  plain: AsyncIterable<Uint8Array>,
  source: string,
  bounds: ArchiveBounds,
): AsyncGenerator<ArchiveEntry> {
  const refused = (detail: string) => failure('wrappedDiskRefused', { source, detail })
  const archive = extract()
  let silentBytes = 0
  let failed: Error | undefined
  const fail = (error: Error) => {
    failed ??= error
    archive.destroy(error)
  }
  const failureOf = (error: unknown) => {
    failed ??= refused(`its archive is damaged (${messageOf(error)})`)
    return failed
  }
  const onPart = (part: Uint8Array) => {
    silentBytes += part.length
    const limit = bounds.wrappedHeaderBytes
    if (silentBytes > limit) throw refused(`its archive has over ${limit} bytes between entries`)
  }
  const feeding = feed(archive, plain, onPart).catch(fail)
  const entries = archive[Symbol.asyncIterator]()
  try {
    for (;;) {
      const next = await entries.next().catch(error => {
        throw failureOf(error)
      })
      if (next.done) break
      const entry = next.value
      silentBytes = 0
      bounds.onEntry()
      const { name, size = 0 } = entry.header
      const type = typeOf(entry.header as Header)
      const onData = () => {
        silentBytes = 0
      }
      const content = watch(entry as AsyncIterable<Uint8Array>, onData, failureOf)
      yield { name, type, sizeBytes: size, content }
      // What was left is read over; what was read to its end yields nothing more.
      for await (const _ of content) void _
    }
    await feeding
    if (failed !== undefined) throw failed
  } finally {
    archive.destroy()
  }
}

async function feed(
  archive: Extract,
  plain: AsyncIterable<Uint8Array>,
  onPart: (part: Uint8Array) => void,
): Promise<void> {
  for await (const whole of plain) {
    for (let at = 0; at < whole.length; at += partBytes) {
      const part = whole.subarray(at, at + partBytes)
      onPart(part)
      if (archive.write(part) || archive.destroyed) continue
      await new Promise<void>(resolve => {
        const done = () => {
          archive.off('drain', done)
          archive.off('close', done)
          resolve()
        }
        archive.on('drain', done)
        archive.on('close', done)
      })
    }
    if (archive.destroyed) return
  }
  archive.end(undefined)
}

async function* watch(
  entry: AsyncIterable<Uint8Array>,
  onData: () => void,
  failureOf: (error: unknown) => Error,
): AsyncGenerator<Uint8Array> {
  const iterator = entry[Symbol.asyncIterator]()
  try {
    for (;;) {
      const { done, value } = await iterator.next().catch(error => {
        throw failureOf(error)
      })
      if (done) return
      onData()
      yield value
    }
  } finally {
    await iterator.return?.()
  }
}

interface Header {
  type?: string | null
  pax?: Record<string, string> | null
}

const types: Record<string, EntryType> = {
  file: 'file',
  'contiguous-file': 'file',
  directory: 'directory',
  link: 'link',
  symlink: 'symlink',
}

/** A file with holes left out (GNU) has attributes that say so, or a type that is not known. */
function typeOf({ type, pax }: Header): EntryType {
  const sparse = Object.keys(pax ?? {}).some(key => key.startsWith('GNU.sparse'))
  return sparse ? 'sparse' : (types[type ?? ''] ?? 'other')
}
