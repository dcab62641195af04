import { expect, test } from 'vitest'
import { isFailure } from '../../base/errors.ts'
import { defaultLimits } from '../../base/limits.ts'
import type { ImageConfig } from '../image-record.ts'
import { checkManifest, decodeManifest, encodeManifest, type ImageManifest } from './manifest.ts'
import { layerAnnotation, mediaTypes } from './media-types.ts'
import { digestBytes } from './packs.ts'

const blob = (kind: keyof typeof mediaTypes, content: string, sizeBytes = content.length) => ({
  mediaType: mediaTypes[kind],
  digest: digestBytes(Buffer.from(content)),
  sizeBytes,
})
const image: ImageManifest = {
  config: blob('config', 'config'),
  layers: ['base', 'upper'].map(name => ({
    index: blob('layer', name),
    locations: blob('locations', `where ${name} is`),
  })),
  packs: [blob('pack', 'one'), blob('pack', 'two')],
  kernel: blob('kernel', 'kernel'),
  initrd: blob('initrd', 'initrd'),
}
// biome-ignore lint/suspicious/noExplicitAny: a test changes it in ways that no type allows.
type Loose = any

const detailOf = (change: (manifest: Loose) => void, limits = defaultLimits): string => {
  const written: Loose = JSON.parse(encodeManifest(image).toString())
  change(written)
  try {
    decodeManifest(Buffer.from(JSON.stringify(written)), limits)
    return 'accepted'
  } catch (error) {
    if (isFailure(error, 'imageManifestInvalid')) return error.message
    throw error
  }
}

test('what is written is read back', () => {
  expect(decodeManifest(encodeManifest(image), defaultLimits)).toEqual(image)
  const noted = encodeManifest(image, { 'org.opencontainers.image.title': 'base' })
  expect(decodeManifest(noted, defaultLimits)).toEqual(image)
})

test('what is new to us is passed over', () => {
  const change = (manifest: Loose) => {
    manifest.annotations = { any: 'thing' }
    manifest.subject = { mediaType: mediaTypes.manifest, digest: image.config.digest, size: 7 }
    manifest.layers[0].annotations = { other: 'thing' }
    manifest.layers.push({ ...manifest.layers[0], mediaType: 'application/vnd.macfleet.later.v1' })
  }
  expect(detailOf(change)).toBe('accepted')
})

test('each rule has its own sentence', () => {
  expect(detailOf(manifest => delete manifest.artifactType)).toContain('artifactType')
  expect(
    detailOf(manifest => {
      manifest.schemaVersion = 1
    }),
  ).toContain('/schemaVersion')
  expect(
    detailOf(manifest => {
      manifest.config.mediaType = 'application/json'
    }),
  ).toContain('another type')
  expect(
    detailOf(manifest => {
      manifest.layers[2].digest = 'sha256:../../etc/passwd'
    }),
  ).toContain('/layers/2/digest')
  expect(
    detailOf(manifest => {
      manifest.layers[2].size = -1
    }),
  ).toContain('/layers/2/size')
  expect(detailOf(manifest => manifest.layers.splice(1, 1))).toContain('do not follow its index')
  expect(
    detailOf(manifest => {
      manifest.layers[1].annotations[layerAnnotation] = image.config.digest
    }),
  ).toContain('do not follow its index')
  expect(detailOf(manifest => manifest.layers.splice(0, 4))).toContain('no layer')
  expect(detailOf(manifest => manifest.layers.push(manifest.layers[4]))).toContain('a pack twice')
  expect(detailOf(manifest => manifest.layers.push(manifest.layers[6]))).toContain('kind kernel')
  expect(
    detailOf(manifest => {
      manifest.layers[4].size = defaultLimits.packBytes + 1
    }),
  ).toContain('too large')
  expect(
    detailOf(manifest => {
      const [index, locations] = manifest.layers
      for (const part of [index, locations]) part.size = defaultLimits.layerIndexBytes
      manifest.layers.unshift(index, locations, index, locations)
    }),
  ).toMatch(/indexes have \d+ bytes together/)
  expect(detailOf(() => {}, { ...defaultLimits, imageLayers: 1 })).toContain('too many layers')
  expect(detailOf(() => {}, { ...defaultLimits, imagePacks: 1 })).toContain('too many packs')
  expect(detailOf(() => {}, { ...defaultLimits, imageManifestBytes: 100 })).toContain('too large')
  for (const text of ['', '[]', 'null', '"', '\xff']) {
    expect(() => decodeManifest(Buffer.from(text, 'latin1'), defaultLimits)).toThrow('manifest')
  }
})

test('a manifest of ten thousand layers is refused at once', () => {
  const many = (manifest: Loose) => {
    const layer = manifest.layers.slice(0, 2)
    manifest.layers = Array.from({ length: 5000 }, () => layer).flat()
  }
  expect(detailOf(many)).toContain('too many layers')
})

test('a manifest has to match its config', () => {
  const config: ImageConfig = {
    ...{ version: 1, arch: 'x86_64', machine: 'linux', firmware: 'bios', virtualSizeBytes: 4096 },
    layers: image.layers.map(({ index: { digest } }) => ({
      ...{ digest, dataBytes: 0, chunkCount: 0, extentCount: 0 },
    })),
    boot: { kernelDigest: image.kernel?.digest ?? '', initrdDigest: image.initrd?.digest ?? '' },
  }
  checkManifest(image, config)
  const upsideDown = { ...image, layers: image.layers.toReversed() }
  expect(() => checkManifest(upsideDown, config)).toThrow('not those of its config')
  expect(() => checkManifest({ ...image, packs: [], layers: [] }, config)).toThrow('layers')
  expect(() => checkManifest(image, { ...config, boot: undefined })).toThrow('kernel')
  expect(() => checkManifest({ ...image, nvram: image.config }, config)).toThrow('NVRAM')
})
