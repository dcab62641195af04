import { failure } from '../../base/errors.ts'
import type { Log } from '../../base/log.ts'
import type { Library } from '../../images/library/library.ts'
import { createRegistryClient, type RegistryClient } from '../../images/registry/client.ts'
import type { RegistryComponents } from '../../images/registry/endpoint.ts'
import { type ImageReference, parseReference } from '../../images/registry/reference.ts'
import { type ResolvedImage, resolveImage } from '../../images/registry/resolve.ts'
import type { Image } from '../../resources/image.ts'
import type { FoundImage } from './origins.ts'
import { type AccessComponents, registryAccess } from './registry-access.ts'

/** What looking up needs. */
export interface LookupComponents extends RegistryComponents, AccessComponents {
  log: Log
  /** The folder that the configuration names; undefined when it names none. */
  library: Library | undefined
}

/** @throws libraryMissing */
export function needLibrary({ library }: Pick<LookupComponents, 'library'>): Library {
  if (library !== undefined) return library
  throw failure('libraryMissing', {})
}

/** An image of ours in its source, looked up by what the source was found to be. */
export async function findImage(
  image: Image,
  components: LookupComponents,
  signal: AbortSignal,
): Promise<FoundImage | undefined> {
  const { source } = image.spec
  const resolved = image.status?.resolved
  if (resolved === undefined) return undefined
  if (source?.registry !== undefined) {
    return await findInRegistry(resolved, image, components, signal)
  }
  if (source?.library === undefined) return undefined
  const { arch } = image.spec
  const found = await needLibrary(components).resolve(source.library, { arch }, signal)
  if (found.kind !== 'image') return undefined
  const { config, layers, locations, digest, reference } = found
  const parts = { config, layers, locations }
  return { parts, digest, resolved: reference, source: found.source }
}

/** A client for the registry that an image comes from; the caller closes it. */
export async function openRegistry(
  { host }: Pick<ImageReference, 'host'>,
  { metadata, spec }: Pick<Image, 'metadata' | 'spec'>,
  components: LookupComponents,
): Promise<RegistryClient> {
  const namespace = metadata.namespace ?? ''
  const secret = spec.source?.pullSecret
  const access = await registryAccess({ host, namespace, secret }, components)
  return createRegistryClient(access, components)
}

/**
 * What a registry says of a reference now.
 * @param text as in spec.source.registry, or by digest as in status.resolved
 */
export async function lookUpReference(
  text: string,
  image: Image,
  components: LookupComponents,
  signal: AbortSignal,
): Promise<ResolvedImage> {
  const reference = parseReference(text)
  const client = await openRegistry(reference, image, components)
  try {
    const { limits } = components
    return await resolveImage(reference, { arch: image.spec.arch }, { client, limits }, signal)
  } finally {
    await client.close()
  }
}

/** An image of ours in a registry, as a source of its chunks. */
async function findInRegistry(
  text: string,
  image: Image,
  components: LookupComponents,
  signal: AbortSignal,
): Promise<FoundImage> {
  const found = await lookUpReference(text, image, components, signal)
  if (found.kind !== 'image') {
    throw failure('registryImageRefused', { reference: text, detail: 'it is no image of macfleet' })
  }
  const { host, repository } = parseReference(found.reference)
  const namespace = image.metadata.namespace ?? ''
  const secret = image.spec.source?.pullSecret
  const access = await registryAccess({ host, namespace, secret }, components)
  const { config, layers, locations, digest } = found
  const byLayer = config.layers.map((layer, at) => [layer.digest, locations[at]] as const)
  return {
    parts: { config, layers, locations },
    digest,
    resolved: found.reference,
    source: {
      kind: 'registry',
      name: `registry ${host}/${repository}`,
      ...{ access, repository },
      locations: Object.fromEntries(
        byLayer.flatMap(([key, value]) => (value ? [[key, value]] : [])),
      ),
    },
  }
}
