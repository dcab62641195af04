import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { sleep } from '../../base/clock.ts'
import { failure } from '../../base/errors.ts'
import { isErrno } from '../../base/files.ts'
import type { LibraryDescription, PeerDescription } from '../../images/sources/source.ts'
import { emptyBits, putBit } from '../../images/transfer/bitmap.ts'
import type { OpenSource, SourceComponents } from '../../images/transfer/open-source.ts'
import type { RandomImage } from './random-layers.ts'

/** What goes wrong with a source from now on; read anew at each request. */
export interface Faults {
  /** Every request fails. */
  down?: boolean
  /** The whole thread dies at the next chunk. */
  exits?: boolean
  /** Chunks `LAYER/CHUNK` with a changed byte; `all` */
  rot?: string[] | 'all'
  /** Nothing comes and nothing fails. */
  stalls?: boolean
  /** Milliseconds before each chunk. */
  delayMs?: number
  /** So many chunks of a request come, then it is cut. */
  cutAfter?: number
  /** Chunks `LAYER/CHUNK` that it has; all when undefined. */
  held?: string[]
}

/** Keeps the chunks of an image in a folder, one file each, that `createOpener` reads. */
export function writeSourceFolder(folder: string, image: RandomImage): void {
  mkdirSync(folder, { recursive: true })
  for (const [layer, chunks] of image.chunks.entries()) {
    const name = image.config.layers[layer]?.digest ?? ''
    writeFileSync(join(folder, name), String(layer))
    for (const [chunk, bytes] of chunks.entries()) {
      writeFileSync(join(folder, `${layer}.${chunk}`), bytes)
    }
  }
  setFaults(folder, {})
}

/** Breaks, or mends, a source. */
export function setFaults(folder: string, faults: Faults): void {
  writeFileSync(join(folder, 'faults.json'), JSON.stringify(faults))
}

/** How many chunks a source was asked for so far. */
export function askedChunks(folder: string): number {
  try {
    return readFileSync(join(folder, 'asked'), 'utf8').length
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return 0
    throw error
  }
}

/** A folder as an origin. */
export function libraryOf(folder: string): LibraryDescription {
  return { kind: 'library', name: folder, folder, layout: [], locations: {} }
}

/** The same as a peer; its name is the folder. */
export function peerOf(folder: string): PeerDescription {
  return { ...{ kind: 'peer', name: folder, identity: '' }, address: '127.0.0.1', port: 1 }
}

/** Opens them in the thread; the module is named to createTransfers. */
export function createOpener({ clock }: SourceComponents): OpenSource {
  return async description => {
    const folder = description.name
    const faultsNow = (): Faults => {
      const faults: Faults = JSON.parse(readFileSync(join(folder, 'faults.json'), 'utf8'))
      const detail = 'connection refused'
      if (faults.down) throw failure('sourceFailed', { source: folder, detail })
      return faults
    }
    return {
      name: folder,
      kind: description.kind,
      async *readBlob() {},
      async openLayer(digest, index) {
        faultsNow()
        const layer = readFileSync(join(folder, digest), 'utf8')
        return {
          async held() {
            const { held } = faultsNow()
            if (held === undefined) return undefined
            const bits = emptyBits(index.chunks.length)
            for (const name of held) {
              const [of, chunk] = name.split('/')
              if (of === layer) putBit(bits, Number(chunk), true)
            }
            return bits
          },
          async *fetch(chunks, signal) {
            for (const [at, number] of chunks.entries()) {
              const faults = faultsNow()
              writeFileSync(join(folder, 'asked'), '.', { flag: 'a' })
              if (faults.exits) {
                setFaults(folder, {})
                process.exit(1)
              }
              if (faults.stalls) await sleep(clock, 3_600_000, signal)
              await sleep(clock, faults.delayMs ?? 0, signal)
              if (at === faults.cutAfter) {
                throw failure('sourceFailed', { source: folder, detail: 'connection reset' })
              }
              const bytes = await readFile(join(folder, `${layer}.${number}`))
              const isRotten = faults.rot === 'all' || faults.rot?.includes(`${layer}/${number}`)
              if (isRotten) bytes[7] = (bytes[7] ?? 0) ^ 1
              yield { number, bytes }
            }
          },
        }
      },
      async close() {},
    }
  }
}
