import Type from 'typebox'
import { Value } from 'typebox/value'
import { isFailure, MacfleetError, messageOf } from '../../base/errors.ts'
import type { Limits } from '../../base/limits.ts'
import { isImageManifest } from '../format/manifest.ts'
import { isDiskName } from '../wrapped/disk-folder.ts'
import type { FolderReader } from './folder-reader.ts'
import { isLayout, type LayoutBounds, type LayoutEntry, readLayout, tagOf } from './layout.ts'
import { isLibraryPart } from './library-name.ts'
import { type LibraryFile, readBlobWhole } from './read-file.ts'

/** One thing in a library that can be asked for. */
export interface LibraryEntry {
  /** `team/base:12`, `team/base.qcow2` */
  name: string
  /** `image`: ours. `container`: may wrap a disk. `disk`: a raw or qcow2 file. */
  kind: 'image' | 'container' | 'disk' | 'unreadable'
  /** Bytes that it takes in the library; shared ones are counted each time. */
  sizeBytes?: number
  /** Of the manifest. */
  digest?: string
  /** As OCI calls them: amd64, arm64. None when nothing says. */
  architectures?: string[]
  /** Why it can not be read. */
  detail?: string
}

/** What is listed. */
export interface ListInit {
  reader: FolderReader
  name: string
  limits: LayoutBounds & Pick<Limits, 'libraryEntries' | 'libraryDepth' | 'imageManifestBytes'>
}

/** What has been found so far. */
interface Listing extends ListInit {
  entries: LibraryEntry[]
  /** Names that may still be looked at. */
  left: number
  isWhole: boolean
}

/** Walks through a library's folders. What can't be asked for by its name is passed over. */
export async function listLibrary(
  init: ListInit,
  signal: AbortSignal,
): Promise<{ entries: LibraryEntry[]; isWhole: boolean }> {
  const listing: Listing = {
    ...init,
    ...{ entries: [], left: init.limits.libraryEntries, isWhole: true },
  }
  await listFolder(listing, [], signal)
  listing.entries.sort((one, other) => (one.name < other.name ? -1 : 1))
  return { entries: listing.entries, isWhole: listing.isWhole }
}

async function listFolder(listing: Listing, path: string[], signal: AbortSignal): Promise<void> {
  const { reader, name, limits } = listing
  const { entries, isWhole } = await reader.list(path, listing.left, signal)
  listing.left -= entries.length
  if (!isWhole) listing.isWhole = false
  for (const entry of entries) {
    const below = [...path, entry.name]
    if (!isLibraryPart(entry.name) || entry.type === 'other') continue
    try {
      if (entry.type === 'file') {
        if (!isDiskName(entry.name)) continue
        const { sizeBytes } = await reader.look(below, signal)
        listing.entries.push({ name: below.join('/'), kind: 'disk', sizeBytes })
      } else if (await isLayout({ reader, name, path: below }, signal)) {
        await listLayout(listing, below, signal)
      } else if (below.length < limits.libraryDepth && listing.left > 0) {
        await listFolder(listing, below, signal)
      } else {
        listing.isWhole = false
      }
    } catch (error) {
      // What went meanwhile is not there; a library that does not answer is no empty one.
      if (!isFailure(error, 'notFound')) throw error
    }
  }
}

async function listLayout(listing: Listing, path: string[], signal: AbortSignal): Promise<void> {
  const { reader, name, limits } = listing
  const layout = { reader, name, path }
  const found = path.join('/')
  try {
    for (const entry of await readLayout(layout, limits, signal)) {
      if (--listing.left < 0) {
        listing.isWhole = false
        return
      }
      listing.entries.push(await describeEntry(layout, entry, limits.imageManifestBytes, signal))
    }
  } catch (error) {
    signal.throwIfAborted()
    if (!(error instanceof MacfleetError)) throw error
    listing.entries.push({ name: found, kind: 'unreadable', detail: messageOf(error) })
  }
}

const manifestSchema = Type.Object({
  config: Type.Object({ digest: Type.String(), size: Type.Integer({ minimum: 0 }) }),
  layers: Type.Array(Type.Object({ size: Type.Integer({ minimum: 0 }) })),
})
const indexSchema = Type.Object({
  manifests: Type.Array(
    Type.Object({
      size: Type.Integer({ minimum: 0 }),
      platform: Type.Optional(Type.Object({ architecture: Type.Optional(Type.String()) })),
    }),
  ),
})

async function describeEntry(
  layout: LibraryFile,
  entry: LayoutEntry,
  limitBytes: number,
  signal: AbortSignal,
): Promise<LibraryEntry> {
  const { digest, platform } = entry
  const tag = tagOf(entry)
  const name = `${layout.path.join('/')}${tag === undefined ? '' : `:${tag}`}`
  const parse = async (of: string): Promise<unknown> =>
    JSON.parse((await readBlobWhole(layout, of, limitBytes, signal)).toString('utf8'))
  try {
    const manifest = await parse(digest)
    if (Value.Check(indexSchema, manifest)) {
      const all = manifest.manifests.map(each => each.platform?.architecture)
      return { name, kind: 'image', digest, architectures: distinct(all) }
    }
    if (!Value.Check(manifestSchema, manifest)) {
      return { name, kind: 'unreadable', digest, detail: 'its manifest is of no known kind' }
    }
    const { config, layers } = manifest
    const sizeBytes = layers.reduce((sum, { size }) => sum + size, config.size)
    const isOurs = isImageManifest(manifest)
    const architecture = platform?.architecture ?? architectureIn(await parse(config.digest))
    const kind = isOurs ? 'image' : 'container'
    return { name, kind, digest, sizeBytes, architectures: distinct([architecture]) }
  } catch (error) {
    signal.throwIfAborted()
    if (!(error instanceof MacfleetError) && !(error instanceof SyntaxError)) throw error
    return { name, kind: 'unreadable', digest, detail: messageOf(error) }
  }
}

/** Ours say `arch`, by the processor's own name; OCI's say `architecture`. */
function architectureIn(config: unknown): string | undefined {
  if (typeof config !== 'object' || config === null) return undefined
  const { architecture } = config as { architecture?: unknown }
  if (typeof architecture === 'string') return architecture
  const { arch } = config as { arch?: unknown }
  return arch === 'x86_64' ? 'amd64' : arch === 'aarch64' ? 'arm64' : undefined
}

function distinct(names: (string | undefined)[]): string[] {
  return [...new Set(names.filter(name => name !== undefined && name.length < 32))] as string[]
}
