import { describe, expect, test } from 'vitest'
import { digestOfBytes, fastComponents, startLyingServer } from '../../test/support/lying-server.ts'
import { encodeConfig } from '../encode-config.ts'
import { encodeLocations } from '../format/locations.ts'
import { encodeManifest, type ImageManifest } from '../format/manifest.ts'
import { mediaTypes } from '../format/media-types.ts'
import type { ImageConfig } from '../image-record.ts'
import { encodeLayerIndex } from '../layer-index.ts'
import { createRegistryClient } from './client.ts'
import { parseReference } from './reference.ts'
import { resolveImage } from './resolve.ts'

const never = new AbortController().signal
const ociIndex = 'application/vnd.oci.image.index.v1+json'

/** What a registry holds: by path, `manifests/TAG`, `manifests/DIGEST` and `blobs/DIGEST`. */
type Content = Map<string, Buffer | string>

function put(content: Content, kind: 'blobs' | 'manifests', bytes: Buffer | string): string {
  const digest = digestOfBytes(bytes)
  content.set(`${kind}/${digest}`, bytes)
  return digest
}

/** An image of one empty layer. */
function addImage(content: Content, more: Partial<ImageConfig> = {}) {
  const index = encodeLayerIndex({ virtualSizeBytes: 4096, chunks: [], zeros: [] })
  const locations = encodeLocations([])
  const config = encodeConfig({
    ...{ version: 1, arch: 'x86_64', machine: 'linux', firmware: 'bios', virtualSizeBytes: 4096 },
    layers: [{ digest: digestOfBytes(index), dataBytes: 0, chunkCount: 0, extentCount: 0 }],
    ...more,
  })
  const describe = (mediaType: string, bytes: Buffer | string) => {
    const digest = put(content, 'blobs', bytes)
    return { mediaType, digest, sizeBytes: Buffer.byteLength(bytes) }
  }
  const manifest: ImageManifest = {
    config: describe(mediaTypes.config, config),
    layers: [
      {
        index: describe(mediaTypes.layer, index),
        locations: describe(mediaTypes.locations, locations),
      },
    ],
    packs: [],
  }
  const digest = put(content, 'manifests', encodeManifest(manifest))
  return { manifest, digest, index, locations }
}

async function resolve(content: Content, text = 'a:1', arch: 'x86_64' | 'aarch64' = 'x86_64') {
  const { host, seen } = await startLyingServer((request, response) => {
    const bytes = content.get(request.url?.replace('/v2/a/', '') ?? '')
    response.writeHead(bytes === undefined ? 404 : 200).end(bytes)
  })
  const components = fastComponents()
  const client = createRegistryClient({ host, plainHttp: true }, components)
  const reference = parseReference(`${host}/${text}`)
  const { limits } = components
  const resolved = await resolveImage(reference, { arch }, { client, limits }, never)
  return { resolved, seen, host }
}

function indexOf(...entries: { architecture?: string; digest: string }[]): string {
  const manifests = entries.map(({ architecture, digest }) => ({
    ...{ mediaType: mediaTypes.manifest, digest, size: 1 },
    platform: { architecture, os: 'linux' },
  }))
  return JSON.stringify({ schemaVersion: 2, mediaType: ociIndex, manifests })
}

describe('a reference', () => {
  test('is resolved to all that an image is but its bytes', async () => {
    const content: Content = new Map()
    const { manifest, digest, index, locations } = addImage(content)
    content.set('manifests/1', content.get(`manifests/${digest}`) ?? '')
    const { resolved, host } = await resolve(content)
    expect(resolved).toMatchObject({
      kind: 'image',
      reference: `${host}/a@${digest}`,
      digest: manifest.config.digest,
      config: { arch: 'x86_64', virtualSizeBytes: 4096 },
      manifest,
    })
    if (resolved.kind !== 'image') throw new Error('it is no image')
    expect(resolved.layers.map(layer => layer.equals(index))).toEqual([true])
    expect(resolved.locations.map(one => one.equals(locations))).toEqual([true])
    const again = await resolve(content, `a@${digest}`)
    expect(again.resolved).toMatchObject({ digest: manifest.config.digest })
  })

  test('to an index is resolved for the architecture that is wanted', async () => {
    const content: Content = new Map()
    const ours = addImage(content)
    const other = addImage(content, { arch: 'aarch64' })
    const unknown = { architecture: 'unknown', digest: digestOfBytes('an attestation') }
    const entries = [unknown, { architecture: 'arm64', digest: other.digest }]
    content.set('manifests/1', indexOf(...entries, { architecture: 'amd64', digest: ours.digest }))
    const found = await Promise.all([resolve(content), resolve(content, 'a:1', 'aarch64')])
    expect(found.map(({ resolved }) => resolved.kind === 'image' && resolved.digest)).toEqual([
      ours.manifest.config.digest,
      other.manifest.config.digest,
    ])
  })

  test('without that architecture says which there are', async () => {
    const content: Content = new Map()
    const { digest } = addImage(content, { arch: 'aarch64' })
    content.set('manifests/1', indexOf({ architecture: 'arm64', digest }))
    await expect(resolve(content)).rejects.toThrow(/not there for x86_64, only for aarch64/)
    await expect(resolve(content)).rejects.toMatchObject({ code: 'registryArchMissing' })
    content.set('manifests/1', content.get(`manifests/${digest}`) ?? '')
    await expect(resolve(content)).rejects.toMatchObject({ code: 'registryArchMissing' })
    content.set('manifests/1', indexOf({ architecture: 's390x', digest }, { digest }))
    await expect(resolve(content)).rejects.toThrow(/only for others/)
  })
})

describe('a registry that lies', () => {
  const hostile: [string, RegExp, (content: Content) => string | Buffer][] = [
    ['a manifest that is no JSON', /not JSON/, () => 'no'],
    ['a manifest of no kind', /of no kind that is known/, () => '[1,2]'],
    [
      'an old manifest',
      /of no kind that is known/,
      () => '{"schemaVersion":1,"name":"a","fsLayers":[]}',
    ],
    ['an index that is none', /not made as it should/, () => `{"mediaType":"${ociIndex}"}`],
    [
      'an index of an index',
      /another index/,
      content => {
        const inner = put(content, 'manifests', indexOf())
        return indexOf({ architecture: 'amd64', digest: inner })
      },
    ],
    [
      'an index with a path for a digest',
      /by no digest/,
      () => indexOf({ architecture: 'amd64', digest: '../../x' }),
    ],
    [
      'a manifest with 10,000 layers',
      /too many layers/,
      content => {
        const { manifest } = addImage(content)
        return encodeManifest({ ...manifest, layers: Array(10_000).fill(manifest.layers[0]) })
      },
    ],
    [
      'a container with 10,000 layers',
      /more than 256/,
      content => {
        const layer = {
          mediaType: 'application/vnd.oci.image.layer.v1.tar',
          digest: digestOfBytes('a'),
          size: 1,
        }
        const config = JSON.stringify({
          architecture: 'amd64',
          rootfs: { type: 'layers', diff_ids: Array(10_000).fill(layer.digest) },
        })
        const digest = put(content, 'blobs', config)
        const layers = Array(10_000).fill(layer)
        return JSON.stringify({ schemaVersion: 2, config: { digest }, layers })
      },
    ],
    [
      'a config that is not there',
      /not found/,
      content => {
        const { manifest } = addImage(content)
        content.delete(`blobs/${manifest.config.digest}`)
        return encodeManifest(manifest)
      },
    ],
    [
      'a config that is another',
      /another digest/,
      content => {
        const { manifest } = addImage(content)
        const path = `blobs/${manifest.config.digest}`
        content.set(path, Buffer.from(content.get(path) ?? '').fill(0x20))
        return encodeManifest(manifest)
      },
    ],
    [
      'an index of a layer that is longer than was said',
      /more than 3 bytes/,
      content => {
        const { manifest } = addImage(content)
        for (const { index } of manifest.layers) index.sizeBytes = 3
        return encodeManifest(manifest)
      },
    ],
    [
      'an index of a layer that is shorter than was said',
      /bytes where its manifest says 4000/,
      content => {
        const { manifest } = addImage(content)
        for (const { index } of manifest.layers) index.sizeBytes = 4_000
        return encodeManifest(manifest)
      },
    ],
    [
      'indexes that are too large together',
      /indexes have 3000000\d\d bytes together/,
      content => {
        const { manifest } = addImage(content)
        const [layer] = manifest.layers
        if (layer === undefined) throw new Error('no layer')
        const index = { ...layer.index, sizeBytes: 60_000_000 }
        const layers = Array.from({ length: 5 }, () => ({ ...layer, index }))
        const config = JSON.parse(String(content.get(`blobs/${manifest.config.digest}`)))
        config.layers = Array(5).fill(config.layers[0])
        const bytes = JSON.stringify(config)
        const digest = put(content, 'blobs', bytes)
        const described = { ...manifest.config, digest, sizeBytes: bytes.length }
        return encodeManifest({ ...manifest, config: described, layers })
      },
    ],
    [
      'layers that its config does not name',
      /layers are not those of its config/,
      content => {
        const { manifest } = addImage(content)
        const [layer] = manifest.layers
        if (layer !== undefined) manifest.layers.push(layer)
        return encodeManifest(manifest)
      },
    ],
  ]

  test.each(hostile)('by %s is refused', async (_, why, make) => {
    const content: Content = new Map()
    content.set('manifests/1', make(content))
    await expect(resolve(content)).rejects.toThrow(why)
  })
})
