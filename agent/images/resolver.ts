import { type Clock, timestamp } from '../../base/clock.ts'
import type { ImageConfig } from '../../images/image-record.ts'
import type { ImageStore } from '../../images/image-store.ts'
import type { StatedFormat } from '../../images/inspect-header.ts'
import { parseReference } from '../../images/registry/reference.ts'
import type { ResolvedContainerImage } from '../../images/registry/resolve.ts'
import { openRemoteDisk } from '../../images/remote/remote-disk.ts'
import { openWrappedDisk } from '../../images/wrapped/wrapped-disk.ts'
import { withCondition } from '../../resources/condition.ts'
import type { Image } from '../../resources/image.ts'
import type { ImageSource } from '../../resources/image-source.ts'
import type { ImageStatus } from './image-status.ts'
import { type LookupComponents, lookUpReference, needLibrary, openRegistry } from './lookup.ts'
import { authoritiesOf } from './registry-access.ts'

/** What resolving needs. */
export interface ResolverComponents extends LookupComponents {
  images: ImageStore
  clock: Clock
}

/** How far a disk is that is taken in at once. */
export type OnProgress = (doneBytes: number, totalBytes: number | undefined) => void

/** What an image's source was found to be. */
export type ResolvedStatus = ImageStatus & { digest: string }

/** Looks up where an image comes from. */
export interface SourceResolver {
  /**
   * What the source is now. A disk without an image around it (wrapped in a container, at a URL)
   * is taken in at once, and lies on this host when it resolves.
   * @throws what the source refuses; the signal's reason
   */
  resolve(image: Image, onProgress: OnProgress, signal: AbortSignal): Promise<ResolvedStatus>
}

/** A disk as it comes, without an image around it. */
interface Bare {
  sizeBytes?: number
  format: StatedFormat
  stream: AsyncIterable<Uint8Array>
  close(): Promise<void>
}

/** Asks registries and servers. */
export function createSourceResolver(components: ResolverComponents): SourceResolver {
  return {
    async resolve(image, onProgress, signal) {
      const source: ImageSource = image.spec.source ?? {}
      const how = { onProgress, signal }
      if (source.url !== undefined) {
        const disk = await openUrl({ ...source, url: source.url }, components, signal)
        // What follows the path may be a key.
        const resolved = source.url.replace(/[?#].*$/s, '')
        return await takeIn(image, disk, { ...how, resolved }, components)
      }
      if (source.library !== undefined) {
        return await resolveInLibrary(image, source.library, how, components)
      }
      const found = await lookUpReference(source.registry ?? '', image, components, signal)
      if (found.kind === 'image') {
        return describe(found.config, found.digest, found.reference, components)
      }
      return await takeWrapped(image, found, how, components)
    },
  }
}

async function resolveInLibrary(
  image: Image,
  name: string,
  how: { onProgress: OnProgress; signal: AbortSignal },
  components: ResolverComponents,
): Promise<ResolvedStatus> {
  const { signal } = how
  const { arch } = image.spec
  const found = await needLibrary(components).resolve(name, { arch }, signal)
  if (found.kind === 'image') {
    return describe(found.config, found.digest, found.reference, components)
  }
  const bounds = components.limits
  const disk =
    found.kind === 'disk'
      ? found
      : await openWrappedDisk(found.image, found.wrapped, { bounds, signal })
  return await takeIn(image, disk, { ...how, resolved: found.reference }, components)
}

async function openUrl(
  { url, digest }: ImageSource & { url: string },
  { clock, log, limits, config }: ResolverComponents,
  signal: AbortSignal,
): Promise<Bare> {
  // Servers that the operator named are trusted with addresses of this host's own networks.
  const { host } = new URL(url)
  const named = Object.hasOwn(config.registries, host) ? config.registries[host] : undefined
  const authorities = named && (await authoritiesOf(named))
  const init = {
    url,
    ...(digest !== undefined && { digest }),
    ...(named !== undefined && { hosts: [host] }),
    ...(authorities !== undefined && { authorities }),
  }
  return await openRemoteDisk(init, { clock, log, limits }, signal)
}

async function takeWrapped(
  image: Image,
  { image: wrapped, reference }: ResolvedContainerImage,
  { onProgress, signal }: { onProgress: OnProgress; signal: AbortSignal },
  components: ResolverComponents,
): Promise<ResolvedStatus> {
  const parsed = parseReference(reference)
  const client = await openRegistry(parsed, image, components)
  try {
    const source = {
      name: reference,
      openBlob: (digest: string, ending: AbortSignal) =>
        client.streamBlob(parsed.repository, digest, {}, ending),
    }
    const disk = await openWrappedDisk(wrapped, source, { bounds: components.limits, signal })
    const options = { onProgress, signal, resolved: reference }
    return await takeIn(image, disk, options, components)
  } finally {
    await client.close()
  }
}

async function takeIn(
  { spec }: Image,
  disk: Bare,
  told: { onProgress: OnProgress; signal: AbortSignal; resolved: string },
  components: ResolverComponents,
): Promise<ResolvedStatus> {
  const { arch, machine, firmware } = spec
  const { stream, sizeBytes, format } = disk
  try {
    const record = await components.images.importImage(
      { stream, ...(sizeBytes !== undefined && { sizeBytes }) },
      {
        ...{ format, arch, machine, firmware, signal: told.signal },
        onProgress: ({ doneBytes, totalBytes }) => told.onProgress(doneBytes, totalBytes),
      },
    )
    return {
      ...statusHead(record.digest, told.resolved, components.clock),
      virtualSizeBytes: record.virtualSizeBytes,
      sizeBytes: record.allocatedBytes,
      chunks: record.chunkCount,
      format: record.format,
      hasKernel: false,
    }
  } finally {
    await disk.close()
  }
}

function describe(
  config: ImageConfig,
  digest: string,
  resolved: string,
  { clock }: ResolverComponents,
): ResolvedStatus {
  const sum = (of: 'dataBytes' | 'chunkCount') =>
    config.layers.reduce((all, layer) => all + layer[of], 0)
  return {
    ...statusHead(digest, resolved, clock),
    virtualSizeBytes: config.virtualSizeBytes,
    sizeBytes: sum('dataBytes'),
    chunks: sum('chunkCount'),
    hasKernel: config.boot !== undefined,
  }
}

function statusHead(digest: string, resolved: string, clock: Clock) {
  const message = 'The image can be used; hosts fetch it when they need it'
  const condition = { type: 'Ready', status: 'True', reason: 'Resolved', message } as const
  const conditions = withCondition([], condition, timestamp(clock))
  return { phase: 'Ready' as const, digest, resolved, conditions }
}
