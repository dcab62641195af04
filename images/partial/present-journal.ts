import { constants } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { dirname } from 'node:path'
import { crc32 } from 'node:zlib'
import { syncFolder, writeFileAtomic } from '../../base/files.ts'

/**
 * Which chunks of a partial image are durable. A record is the chunk's number, counted through all
 * layers, and a checksum of that number and the image's digest, 4 bytes each. Every record stands
 * for itself: one that was torn by a loss of power, or was never of this image, counts as not
 * written.
 */
export interface PresentJournal {
  /** Durable when it resolves. What failed is written over by the next call. */
  append(chunks: readonly number[]): Promise<void>
  close(): Promise<void>
}

/** Whose journal it is. */
export interface PresentJournalInit {
  path: string
  /** The image's digest. */
  digest: string
  /** Chunks that the image has, and so the most records that there can be. */
  chunkCount: number
}

const recordBytes = 8
const privateMode = 0o600

/**
 * Opens a journal, or begins one.
 * @returns it, and the chunks that it names, once each
 */
export async function openPresentJournal(
  init: PresentJournalInit,
): Promise<{ journal: PresentJournal; chunks: number[] }> {
  const { path } = init
  const salt = crc32(init.digest)
  const handle = await open(path, constants.O_RDWR | constants.O_CREAT, privateMode)
  try {
    const { size } = await handle.stat()
    const chunks = await readChunks(handle, init, salt)
    if (size === 0) await syncFolder(dirname(path))
    if (size === chunks.length * recordBytes) {
      return { journal: createJournal(handle, salt, size), chunks }
    }
    await writeFileAtomic(path, encodeRecords(chunks, salt), privateMode)
    await handle.close()
    const renewed = await open(path, 'r+')
    return { journal: createJournal(renewed, salt, chunks.length * recordBytes), chunks }
  } catch (error) {
    await handle.close()
    throw error
  }
}

function createJournal(handle: FileHandle, salt: number, sizeBytes: number): PresentJournal {
  let endBytes = sizeBytes
  return {
    async append(chunks) {
      const records = encodeRecords(chunks, salt)
      for (let at = 0; at < records.length; ) {
        const rest = records.length - at
        at += (await handle.write(records, at, rest, endBytes + at)).bytesWritten
      }
      await handle.datasync()
      endBytes += records.length
    },
    close: () => handle.close(),
  }
}

async function readChunks(
  handle: FileHandle,
  { chunkCount }: PresentJournalInit,
  salt: number,
): Promise<number[]> {
  const bytes = Buffer.alloc(chunkCount * recordBytes)
  const { bytesRead } = await handle.read(bytes, 0, bytes.length, 0)
  const found = new Set<number>()
  for (let at = 0; at + recordBytes <= bytesRead; at += recordBytes) {
    const chunk = bytes.readUInt32LE(at)
    const sum = crc32(bytes.subarray(at, at + 4), salt)
    if (chunk < chunkCount && sum === bytes.readUInt32LE(at + 4)) found.add(chunk)
  }
  return [...found]
}

function encodeRecords(chunks: readonly number[], salt: number): Buffer {
  const records = Buffer.alloc(chunks.length * recordBytes)
  for (const [place, chunk] of chunks.entries()) {
    const at = place * recordBytes
    records.writeUInt32LE(chunk, at)
    records.writeUInt32LE(crc32(records.subarray(at, at + 4), salt), at + 4)
  }
  return records
}
