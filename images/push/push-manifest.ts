import { open } from 'node:fs/promises'
import { join } from 'node:path'
import { encodeConfig } from '../encode-config.ts'
import type { Pack } from '../format/locations.ts'
import { type Descriptor, encodeManifest } from '../format/manifest.ts'
import { mediaTypes } from '../format/media-types.ts'
import { digestBytes } from '../format/packs.ts'
import { imageFiles } from '../image-files.ts'
import type { Destination, OutgoingBlob } from './destination.ts'
import type { PushRequest } from './push-request.ts'

/** What a manifest names beside the files of the image. */
export interface ManifestParts {
  /** The layers' indexes, and where their chunks lie, base first. */
  encoded: readonly Buffer[]
  locations: readonly Buffer[]
  packs: readonly Pack[]
}

/**
 * Sends all of an image but its packs, which are there: the small blobs first, the manifest last.
 * @returns the manifest's digest, which the registry knows it by
 */
export async function pushManifest(
  { image, repository, tag, origin, annotations }: PushRequest,
  { encoded, locations, packs }: ManifestParts,
  destination: Destination,
  signal: AbortSignal,
): Promise<string> {
  const { config } = image
  const isThere = async (digest: string): Promise<boolean> => {
    if ((await destination.blobBytes(repository, digest, signal)) !== undefined) return true
    if (origin === undefined || origin.repository === repository) return false
    return await destination.mountBlob(repository, digest, origin.repository, signal)
  }
  const send = async (kind: keyof typeof mediaTypes, blob: OutgoingBlob): Promise<Descriptor> => {
    const { digest, sizeBytes } = blob
    if (!(await isThere(digest))) await destination.uploadBlob(repository, blob, signal)
    return { mediaType: mediaTypes[kind], digest, sizeBytes }
  }
  const sendFile = async (kind: 'kernel' | 'initrd' | 'nvram', digest: string | undefined) =>
    digest === undefined
      ? {}
      : {
          [kind]: await withFile(join(image.path, imageFiles[kind]), digest, blob =>
            send(kind, blob),
          ),
        }
  const layers = []
  for (const [at, index] of encoded.entries()) {
    layers.push({
      index: await send('layer', blobOf(index)),
      locations: await send('locations', blobOf(locations[at] ?? Buffer.alloc(0))),
    })
  }
  const manifest = encodeManifest(
    {
      config: await send('config', blobOf(Buffer.from(encodeConfig(config)))),
      layers,
      packs: packs.map(pack => ({ mediaType: mediaTypes.pack, ...pack })),
      ...(await sendFile('kernel', config.boot?.kernelDigest)),
      ...(await sendFile('initrd', config.boot?.initrdDigest)),
      ...(await sendFile('nvram', config.nvramDigest)),
    },
    annotations,
  )
  const sent = { mediaType: mediaTypes.manifest, bytes: manifest }
  return await destination.putManifest(repository, tag, sent, signal)
}

function blobOf(bytes: Buffer): OutgoingBlob {
  return {
    digest: digestBytes(bytes),
    sizeBytes: bytes.length,
    read: async (offsetBytes, lengthBytes) =>
      bytes.subarray(offsetBytes, offsetBytes + lengthBytes),
  }
}

/** What it has become since is the registry's to find out: it compares with the digest. */
async function withFile<T>(
  path: string,
  digest: string,
  use: (blob: OutgoingBlob) => Promise<T>,
): Promise<T> {
  const file = await open(path, 'r')
  try {
    const { size: sizeBytes } = await file.stat()
    return await use({
      digest,
      sizeBytes,
      async read(offsetBytes, lengthBytes) {
        const bytes = Buffer.allocUnsafe(lengthBytes)
        const { bytesRead } = await file.read(bytes, 0, lengthBytes, offsetBytes)
        return bytes.subarray(0, bytesRead)
      },
    })
  } finally {
    await file.close()
  }
}
