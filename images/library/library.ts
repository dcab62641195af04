import { failure, isFailure } from '../../base/errors.ts'
import type { ImageConfig } from '../image-record.ts'
import type { StatedFormat } from '../inspect-header.ts'
import {
  type ResolvedContainerImage,
  type ResolvedOwnImage,
  resolveImage,
} from '../registry/resolve.ts'
import type { LibraryDescription } from '../sources/source.ts'
import { isDiskName } from '../wrapped/disk-folder.ts'
import type { WrappedSource } from '../wrapped/wrapped-disk.ts'
import { type CheckProgress, checkFile, checkLayout, type LibraryCheck } from './check-library.ts'
import { createFolderReader, type LibraryComponents } from './folder-reader.ts'
import { createLayoutClient, isLayout } from './layout.ts'
import { readLibraryName } from './library-name.ts'
import { type LibraryEntry, listLibrary } from './list-library.ts'
import { blobPath, type LibraryFile, readFileWhole } from './read-file.ts'

/** What a name in a library stands for. */
export type LibraryImage = LibraryOwnImage | LibraryContainer | LibraryDisk

/** An image of ours, and the source that its chunks come from (library-source.ts). */
export interface LibraryOwnImage extends ResolvedOwnImage {
  source: LibraryDescription
}

/** A container image, and where its layers come from (wrapped/). */
export interface LibraryContainer extends ResolvedContainerImage {
  wrapped: WrappedSource
}

/** A raw or qcow2 file, for an import. */
export interface LibraryDisk {
  kind: 'disk'
  /** `library:team/base.qcow2` */
  reference: string
  sizeBytes: number
  /** What its name says of it; `auto` where that is nothing. */
  format: StatedFormat
  /** Throws contentDiffers at its end when the file was changed meanwhile. */
  stream: AsyncIterable<Uint8Array>
  /** As disks from elsewhere have it; nothing is open that the library itself does not close. */
  close(): Promise<void>
}

/**
 * A folder of images that others fill, and that is never written here. Nothing in it is trusted.
 * Everything throws `sourceFailed` when its file system does not answer, and the signal's reason.
 */
export interface Library {
  /** What is in it, by name. Bounded: see Limits.libraryEntries. */
  list(signal: AbortSignal): Promise<{ entries: LibraryEntry[]; isWhole: boolean }>
  /**
   * Looks a name up: an OCI layout (a folder) or a file, whose ending may be left out.
   * @throws badRequest, notFound, and what resolveImage does for a layout
   */
  resolve(
    name: string,
    wanted: { arch: ImageConfig['arch'] },
    signal: AbortSignal,
  ): Promise<LibraryImage>
  /** Reads all of an image and says what of it is not what its digest names. */
  check(
    name: string,
    onProgress: (progress: CheckProgress) => void,
    signal: AbortSignal,
  ): Promise<LibraryCheck>
  close(): void
}

const scheme = 'library:'
const endings = ['', '.qcow2', '.raw', '.img']

/** Opens a library. It is not looked at before it is asked for something. */
export function openLibrary(folder: string, components: LibraryComponents): Library {
  const { limits } = components
  const reader = createFolderReader(folder, components)
  const name = `library ${folder}`
  /** Where a name leads: to a layout, or to one file. */
  const find = async (path: string[], shown: string, signal: AbortSignal) => {
    if (await isLayout({ reader, name, path }, signal)) return { kind: 'layout' as const, path }
    const found: { path: string[]; sizeBytes: number }[] = []
    for (const ending of endings) {
      const file = [...path.slice(0, -1), `${path.at(-1)}${ending}`]
      if (!isDiskName(file.at(-1) ?? '')) continue
      const facts = await reader.look(file, signal).catch(error => {
        if (isFailure(error, 'notFound')) return undefined
        throw error
      })
      if (facts !== undefined) found.push({ path: file, sizeBytes: facts.sizeBytes })
    }
    const [only, other] = found
    if (only === undefined) throw failure('notFound', { resource: 'library', name: shown })
    if (other === undefined) return { kind: 'disk' as const, ...only }
    const names = found.map(each => each.path.join('/')).join(' and ')
    throw failure('badRequest', { detail: `"${shown}" may be ${names}: say which` })
  }
  return {
    list: signal => listLibrary({ reader, name, limits }, signal),
    async resolve(text, wanted, signal) {
      const { path, tag, digest } = readLibraryName(text, limits.libraryDepth)
      const found = await find(path, path.join('/'), signal)
      if (found.kind === 'disk') {
        return describeDisk({ reader, name, path: found.path }, found.sizeBytes, signal)
      }
      const layout = { reader, name, path }
      const reference = {
        ...{ host: 'library', repository: path.join('/') },
        ...(tag !== undefined && { tag }),
        ...(digest !== undefined && { digest }),
      }
      const client = createLayoutClient(layout, limits)
      const resolved = await resolveImage(reference, wanted, { client, limits }, signal)
      return describeImage(resolved, layout, folder)
    },
    async check(text, onProgress, signal) {
      const { path, tag, digest } = readLibraryName(text, limits.libraryDepth)
      const found = await find(path, path.join('/'), signal)
      const file = { reader, name, path: found.path }
      if (found.kind === 'disk') return await checkFile(file, onProgress, signal)
      const chosen = { ...(tag !== undefined && { tag }), ...(digest !== undefined && { digest }) }
      return await checkLayout(file, chosen, { limits, onProgress }, signal)
    },
    close: () => reader.close(),
  }
}

function describeDisk(file: LibraryFile, sizeBytes: number, signal: AbortSignal): LibraryDisk {
  const path = file.path.join('/')
  return {
    kind: 'disk',
    reference: `${scheme}${path}`,
    sizeBytes,
    format: path.endsWith('.qcow2') ? 'qcow2' : 'auto',
    stream: readFileWhole(file, signal),
    close: async () => {},
  }
}

function describeImage(
  resolved: ResolvedOwnImage | ResolvedContainerImage,
  layout: LibraryFile,
  folder: string,
): LibraryOwnImage | LibraryContainer {
  const reference = resolved.reference.replace(/^library\//, scheme)
  if (resolved.kind === 'container') {
    const openBlob = (digest: string, signal: AbortSignal) =>
      readFileWhole({ ...layout, path: blobPath(layout.path, digest) }, signal)
    return { ...resolved, reference, wrapped: { name: reference, openBlob } }
  }
  const { layers } = resolved.config
  const locations = Object.fromEntries(
    layers.map(({ digest }, at) => [digest, resolved.locations[at] ?? Buffer.alloc(0)]),
  )
  const source = { kind: 'library', name: layout.name, folder, layout: layout.path, locations }
  return { ...resolved, reference, source: source as LibraryDescription }
}
