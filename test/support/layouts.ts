import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { defaultLimits } from '../../base/limits.ts'
import { describeLayer } from '../../images/describe-layer.ts'
import { encodeConfig } from '../../images/encode-config.ts'
import { type ChunkLocation, encodeLocations } from '../../images/format/locations.ts'
import { type Descriptor, encodeManifest } from '../../images/format/manifest.ts'
import { mediaTypes } from '../../images/format/media-types.ts'
import { digestBytes, encodeFrame } from '../../images/format/packs.ts'
import type { ImageConfig } from '../../images/image-record.ts'
import { createLayerBuilder } from '../../images/layer-builder.ts'
import { chunkBytes, encodeLayerIndex } from '../../images/layer-index.ts'
import { digestOfBytes } from './images.ts'

/** An image as an index.json names it. */
export interface LayoutManifest {
  mediaType: string
  digest: string
  size: number
  annotations?: Record<string, string>
  platform?: { architecture: string; os: string }
}

/** A folder that is made into an OCI layout. */
export interface TestLayout {
  blobPath(digest: string): string
  writeBlob(bytes: Buffer, mediaType?: string): Descriptor
  /** Writes a manifest or an index as a blob. */
  writeDocument(bytes: Buffer, mediaType?: string): LayoutManifest
  writeIndex(manifests: LayoutManifest[]): void
}

/** Makes the folder of an OCI layout, with no image in it. */
export function makeLayout(folder: string): TestLayout {
  mkdirSync(join(folder, 'blobs/sha256'), { recursive: true })
  writeFileSync(join(folder, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}')
  const blobPath = (digest: string) => join(folder, 'blobs/sha256', digest.slice('sha256:'.length))
  const writeBlob = (bytes: Buffer, mediaType = 'application/octet-stream') => {
    const digest = digestOfBytes(bytes)
    writeFileSync(blobPath(digest), bytes)
    return { mediaType, digest, sizeBytes: bytes.length }
  }
  return {
    blobPath,
    writeBlob,
    writeDocument(bytes, mediaType = mediaTypes.manifest) {
      const { digest, sizeBytes } = writeBlob(bytes)
      return { mediaType, digest, size: sizeBytes }
    },
    writeIndex(manifests) {
      const index = { schemaVersion: 2, manifests }
      writeFileSync(join(folder, 'index.json'), JSON.stringify(index))
    },
  }
}

/** Writes an image of ours with this disk into a layout. @returns its manifest and its pack */
export function writeOwnImage(
  layout: TestLayout,
  disk: Buffer,
  arch: ImageConfig['arch'] = 'x86_64',
): { manifest: LayoutManifest; digest: string; packs: Descriptor[] } {
  const builder = createLayerBuilder()
  for (let at = 0; at < disk.length; at += chunkBytes) {
    builder.addWindow(at, disk.subarray(at, at + chunkBytes))
  }
  const layerIndex = builder.finish(disk.length)
  const frames = layerIndex.chunks.map(({ extents }) => {
    const plain = extents.map(({ offsetBytes, lengthBytes }) =>
      disk.subarray(offsetBytes, offsetBytes + lengthBytes),
    )
    return encodeFrame(Buffer.concat(plain))
  })
  const encoded = encodeLayerIndex(layerIndex)
  // Two packs, so that one of them can be lost.
  const half = Math.ceil(frames.length / 2)
  const packs: Descriptor[] = []
  const locations: ChunkLocation[] = []
  for (const part of [frames.slice(0, half), frames.slice(half)]) {
    const bytes = Buffer.concat(part)
    const pack = { digest: digestBytes(bytes), sizeBytes: bytes.length }
    packs.push(layout.writeBlob(bytes, mediaTypes.pack))
    let offsetBytes = 0
    for (const { length } of part) {
      locations.push({ pack, offsetBytes, lengthBytes: length })
      offsetBytes += length
    }
  }
  const index = layout.writeBlob(encoded, mediaTypes.layer)
  const placed = layout.writeBlob(encodeLocations(locations), mediaTypes.locations)
  const { virtualSizeBytes, layer } = describeLayer(encoded, defaultLimits)
  const config = Buffer.from(
    encodeConfig({
      ...{ version: 1, arch, machine: 'linux', firmware: 'bios', virtualSizeBytes },
      layers: [layer],
    }),
  )
  const manifest = encodeManifest({
    config: layout.writeBlob(config, mediaTypes.config),
    layers: [{ index, locations: placed }],
    packs,
  })
  return { manifest: layout.writeDocument(manifest), digest: digestOfBytes(config), packs }
}

/** Writes a container image whose one layer is this archive, not packed. */
export function writeContainer(layout: TestLayout, tar: Buffer): LayoutManifest {
  const { digest, sizeBytes } = layout.writeBlob(tar)
  const rootfs = { type: 'layers', diff_ids: [digest] }
  const config = layout.writeBlob(Buffer.from(JSON.stringify({ architecture: 'amd64', rootfs })))
  const manifest = {
    ...{ schemaVersion: 2, mediaType: mediaTypes.manifest },
    config: { mediaType: mediaTypes.config, digest: config.digest, size: config.sizeBytes },
    layers: [{ mediaType: 'application/vnd.oci.image.layer.v1.tar', digest, size: sizeBytes }],
  }
  return layout.writeDocument(Buffer.from(JSON.stringify(manifest)))
}
