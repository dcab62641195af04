import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { zstdCompressSync } from 'node:zlib'
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest'
import { systemClock } from '../../base/clock.ts'
import { defaultLimits, type Limits } from '../../base/limits.ts'
import { silentLog } from '../../base/log.ts'
import { createSeededRandom, systemRandom } from '../../base/random.ts'
import { decodeConfig } from '../../images/decode-config.ts'
import { decodeLocations } from '../../images/format/locations.ts'
import { checkManifest, decodeManifest } from '../../images/format/manifest.ts'
import { mediaTypes } from '../../images/format/media-types.ts'
import { checkChunk, decodeFrame, digestBytes } from '../../images/format/packs.ts'
import { imageFiles } from '../../images/image-files.ts'
import { decodeLayerIndex, extentBytes } from '../../images/layer-index.ts'
import { createImagePusher, type ImagePusherComponents } from '../../images/push/image-pusher.ts'
import type { PushProgress } from '../../images/push/progress.ts'
import type { PushRequest } from '../../images/push/push-request.ts'
import { createRegistryClient, type RegistryClient } from '../../images/registry/client.ts'
import type { ImageSource } from '../../images/sources/source.ts'
import { until } from '../support/host.ts'
import { writeLayeredImage } from '../support/layered-image.ts'
import { skopeo, startTestRegistry, type TestRegistry } from '../support/registry.ts'
import { temporaryFolder } from '../support/temporary-folder.ts'

const KiB = 1024
const MiB = 1024 * KiB
const { signal } = new AbortController()
let registry: TestRegistry
let client: RegistryClient
let repositories = 0

beforeAll(async () => {
  registry = await startTestRegistry()
  client = clientOf(defaultLimits)
})
afterAll(async () => {
  await client?.close()
  await registry?.stop()
})

const clientOf = (limits: Limits): RegistryClient =>
  createRegistryClient(registry.access, {
    ...{ clock: systemClock, limits, log: silentLog, random: systemRandom },
  })

/** A name of its own for each test. */
const newRepository = (): string => `team/image-${repositories++}`

function createTestPusher(
  folder: string,
  init: Partial<ImagePusherComponents & { packBytes: number; sources: ImageSource[] }> = {},
) {
  const { packBytes = defaultLimits.pushPackBytes, sources = [], ...rest } = init
  const pusher = createImagePusher(join(folder, 'pusher'), {
    clock: systemClock,
    limits: { ...defaultLimits, pushPackBytes: packBytes },
    log: silentLog,
    findChunk: async () => undefined,
    ...rest,
  })
  return (request: PushRequest, onProgress?: (progress: PushProgress) => void) =>
    pusher.push(request, client, sources, { signal, ...(onProgress ? { onProgress } : {}) })
}

/** Bytes of all blobs and manifests that the registry holds: what was ever sent to it. */
function storedBytes(): number {
  const blobs = join(registry.folder, 'storage/docker/registry/v2/blobs')
  const names = readdirSync(blobs, { recursive: true, encoding: 'utf8' })
  const files = names.filter(name => name.endsWith('/data'))
  return files.reduce((sum, name) => sum + statSync(join(blobs, name)).size, 0)
}

/** Reads an image from the registry by nothing but what the format says. */
async function readBack(repository: string, tag: string): Promise<Buffer> {
  const bytes = (await client.readManifest(repository, tag, signal)) ?? Buffer.alloc(0)
  const manifest = decodeManifest(bytes, defaultLimits)
  const blob = (digest: string) => client.readBlob(repository, digest, 512 * MiB, signal)
  const config = decodeConfig(await blob(manifest.config.digest))
  checkManifest(manifest, config)
  const packs = new Map<string, Buffer>()
  for (const { digest } of manifest.packs) packs.set(digest, await blob(digest))
  const disk = Buffer.alloc(config.virtualSizeBytes)
  for (const layer of manifest.layers) {
    const { chunks, zeros } = decodeLayerIndex(await blob(layer.index.digest), defaultLimits)
    const encoded = await blob(layer.locations.digest)
    const locations = decodeLocations(encoded, chunks.length, defaultLimits)
    for (const [chunk, { digest, extents }] of chunks.entries()) {
      const { pack, offsetBytes, lengthBytes } = locations.at(chunk)
      const frame = packs.get(pack.digest)?.subarray(offsetBytes, offsetBytes + lengthBytes)
      const plain = decodeFrame(frame ?? Buffer.alloc(0), extentBytes(extents))
      checkChunk(plain, digest)
      let at = 0
      for (const extent of extents) {
        plain.copy(disk, extent.offsetBytes, at, at + extent.lengthBytes)
        at += extent.lengthBytes
      }
    }
    for (const zero of zeros) disk.fill(0, zero.offsetBytes, zero.offsetBytes + zero.lengthBytes)
  }
  return disk
}

/** Bytes of which about half can be compressed away, different everywhere. */
function halfNoise(lengthBytes: number, seed: number): Buffer {
  const bytes = createSeededRandom(seed).bytes(lengthBytes)
  for (let at = 0; at < lengthBytes; at += 128) bytes.fill(0x61, at, at + 64)
  return bytes
}

test('what was pushed can be read by its format, and skopeo reads and copies it', async () => {
  const folder = temporaryFolder()
  const image = writeLayeredImage(join(folder, 'image'), 64 * MiB, [
    {
      data: [
        [0, halfNoise(10 * MiB, 1)],
        [40 * MiB, halfNoise(64 * KiB, 2)],
      ],
    },
    { data: [[50 * MiB, halfNoise(MiB, 3)]], zeros: [{ offsetBytes: 60 * MiB, lengthBytes: MiB }] },
  ])
  const repository = newRepository()
  const push = createTestPusher(folder, { packBytes: 4 * MiB })
  const told: PushProgress[] = []
  const annotations = { 'org.opencontainers.image.title': 'a test' }
  const request = { image, repository, tag: 'v1', annotations }
  const pushed = await push(request, progress => told.push(progress))
  expect(pushed).toMatchObject({ chunkCount: 12, newChunkCount: 12 })
  expect(told.at(-1)).toMatchObject({ doneBytes: 11 * MiB + 64 * KiB, sentBytes: pushed.packBytes })
  expect(told.at(-1)?.totalBytes).toBe(told.at(-1)?.doneBytes)
  expect(told.every(({ doneBytes }, at) => doneBytes >= (told[at - 1]?.doneBytes ?? 0))).toBe(true)
  expect(readdirSync(join(folder, 'pusher/work'))).toEqual([])
  const disk = readFileSync(join(image.path, imageFiles.disk))
  expect((await readBack(repository, 'v1')).equals(disk)).toBe(true)

  const of = (name: string) => `docker://${registry.host}/${name}:v1`
  const seen = JSON.parse(await skopeo(['inspect', '--tls-verify=false', of(repository)]))
  expect(seen).toMatchObject({ Digest: pushed.digest, Architecture: 'amd64', Os: 'linux' })
  const raw = JSON.parse(await skopeo(['inspect', '--raw', '--tls-verify=false', of(repository)]))
  expect(raw.artifactType).toBe(mediaTypes.artifact)
  const copy = newRepository()
  const plain = ['--src-tls-verify=false', '--dest-tls-verify=false']
  await skopeo(['copy', ...plain, of(repository), of(copy)])
  expect((await readBack(copy, 'v1')).equals(disk)).toBe(true)
  expect(digestBytes((await client.readManifest(copy, 'v1', signal)) ?? Buffer.alloc(0))).toBe(
    pushed.digest,
  )
})

test.for(['contiguous', 'scattered'])(
  'a change of 10 MB on a disk of 1 GB moves what it takes compressed: %s',
  async kind => {
    const folder = temporaryFolder()
    const base = { data: [[0, halfNoise(48 * MiB, 4)]] as [number, Buffer][] }
    const sizeBytes = 1024 * MiB
    const original = writeLayeredImage(join(folder, 'base'), sizeBytes, [base])
    const repository = newRepository()
    const push = createTestPusher(folder)
    await push({ image: original, repository, tag: 'base' })
    const change = halfNoise(10 * MiB, kind === 'scattered' ? 5 : 6)
    const data = Array.from({ length: 2560 }, (_, at): [number, Buffer] => {
      const offset = kind === 'scattered' ? at * 400 * KiB : 20 * MiB + at * 4096
      return [offset, change.subarray(at * 4096, (at + 1) * 4096)]
    })
    const upper = kind === 'scattered' ? data : [[20 * MiB, change] as [number, Buffer]]
    const image = writeLayeredImage(join(folder, 'upper'), sizeBytes, [base, { data: upper }])
    const beforeBytes = storedBytes()
    const pushed = await push({ image, repository, tag: 'changed' })
    const movedBytes = storedBytes() - beforeBytes
    expect(pushed.newChunkCount).toBe(10)
    expect(movedBytes).toBeGreaterThan(pushed.packBytes)
    const ratio = movedBytes / zstdCompressSync(change).length
    expect(ratio).toBeLessThan(1.2)
    const before = storedBytes()
    const again = await push({ image, repository, tag: 'changed' })
    expect(again).toMatchObject({ newChunkCount: 0, packBytes: 0, digest: pushed.digest })
    expect(storedBytes()).toBe(before)
    // The base's chunks that are covered now are not on this disk any more, and not needed either.
    const elsewhere = createTestPusher(temporaryFolder())
    const other = await elsewhere({ image, repository, tag: 'changed' })
    expect(other).toMatchObject({ newChunkCount: 0, digest: pushed.digest })
  },
)

test('packs are taken over from another repository, sent again where they are gone', async () => {
  const folder = temporaryFolder()
  const data: [number, Buffer][] = [[0, halfNoise(6 * MiB, 7)]]
  const image = writeLayeredImage(join(folder, 'image'), 8 * MiB, [{ data }])
  const [first, second] = [newRepository(), newRepository()]
  const push = createTestPusher(folder)
  const pushed = await push({ image, repository: first, tag: 'v1' })
  const before = storedBytes()
  expect(await push({ image, repository: second, tag: 'v1' })).toEqual({
    ...pushed,
    ...{ newChunkCount: 0, packBytes: 0 },
  })
  expect(storedBytes()).toBe(before)
  const bytes = await client.readManifest(first, 'v1', signal)
  const [pack] = decodeManifest(bytes ?? Buffer.alloc(0), defaultLimits).packs
  // As a registry's garbage collection would: the blob, and what says that repositories have it.
  for (const repository of [first, second]) {
    await fetch(`http://${registry.host}/v2/${repository}/blobs/${pack?.digest}`, {
      method: 'DELETE',
    })
  }
  rmSync(registry.blobPath(pack?.digest ?? ''))
  expect(await push({ image, repository: second, tag: 'v1' })).toEqual(pushed)
  const disk = readFileSync(join(image.path, imageFiles.disk))
  expect((await readBack(second, 'v1')).equals(disk)).toBe(true)
})

test('a push goes on where its registry was killed', async () => {
  const folder = temporaryFolder()
  const data: [number, Buffer][] = [[0, createSeededRandom(8).bytes(48 * MiB)]]
  const image = writeLayeredImage(join(folder, 'image'), 64 * MiB, [{ data }])
  const repository = newRepository()
  let kills = 0
  const pushed = await createTestPusher(folder)({ image, repository, tag: 'v1' }, progress => {
    if (kills > 0 || progress.doneBytes < 20 * MiB) return
    kills++
    registry.kill().then(() => registry.start())
  })
  expect(kills).toBe(1)
  expect(pushed.newChunkCount).toBe(48)
  const disk = readFileSync(join(image.path, imageFiles.disk))
  expect((await readBack(repository, 'v1')).equals(disk)).toBe(true)
})

test('packs that were complete are not sent again after kill -9', async () => {
  const folder = temporaryFolder()
  const data: [number, Buffer][] = [[0, createSeededRandom(9).bytes(40 * MiB)]]
  const image = writeLayeredImage(join(folder, 'image'), 64 * MiB, [{ data }])
  const repository = newRepository()
  const sent = join(folder, 'pusher/sent')
  const script = join(import.meta.dirname, '../support/push-child.ts')
  const args = [script, registry.host, image.path, join(folder, 'pusher'), repository]
  const child = spawn(process.execPath, args, { stdio: 'inherit' })
  onTestFinished(() => {
    child.kill('SIGKILL')
  })
  const records = () => {
    try {
      return readdirSync(sent).filter(name => name.endsWith('.json'))
    } catch {
      return []
    }
  }
  await until('some packs are sent', async () => records().length >= 4 || undefined, 30_000)
  child.kill('SIGKILL')
  if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
  const packs = records().map(name => `sha256:${name.slice(33, -'.json'.length)}`)
  expect(packs.length).toBeLessThan(20)
  const began = registry.requests.length
  const pushed = await createTestPusher(folder, { packBytes: 2 * MiB })({
    ...{ image, repository, tag: 'v1' },
  })
  expect(pushed.newChunkCount).toBeLessThanOrEqual(40 - packs.length)
  expect(pushed.newChunkCount).toBeGreaterThan(0)
  const uploads = registry.requests.slice(began).filter(({ method }) => method === 'PUT')
  const isSentAgain = (pack: string) =>
    uploads.some(({ uri }) => uri.includes(encodeURIComponent(pack)))
  expect(packs.filter(isSentAgain)).toEqual([])
  expect(readdirSync(join(folder, 'pusher/work'))).toEqual([])
  const disk = readFileSync(join(image.path, imageFiles.disk))
  expect((await readBack(repository, 'v1')).equals(disk)).toBe(true)
})

test('what later layers cover is taken from other images here, or from a source', async () => {
  const folder = temporaryFolder()
  const below = halfNoise(2 * MiB, 10)
  const base = { data: [[0, below]] as [number, Buffer][] }
  const upper = { data: [[4096, halfNoise(8192, 11)]] as [number, Buffer][] }
  const parent = writeLayeredImage(join(folder, 'base'), 4 * MiB, [base])
  const image = writeLayeredImage(join(folder, 'image'), 4 * MiB, [base, upper])
  const push = async (init: Parameters<typeof createTestPusher>[1]) => {
    const repository = newRepository()
    const pushed = await createTestPusher(temporaryFolder(), init)({ image, repository, tag: 'v1' })
    expect(pushed.newChunkCount).toBe(3)
    const disk = readFileSync(join(image.path, imageFiles.disk))
    expect((await readBack(repository, 'v1')).equals(disk)).toBe(true)
  }
  await expect(push({})).rejects.toMatchObject({
    ...{ code: 'layerIncomplete', values: { count: 1, layer: image.config.layers[0]?.digest } },
  })
  const path = join(parent.path, imageFiles.disk)
  const extents = [{ offsetBytes: 0, lengthBytes: MiB }]
  await push({ findChunk: async () => ({ path, extents }) })
  const sourceOf = (bytes: Buffer): ImageSource => ({
    ...{ name: 'a test', kind: 'library' },
    async *readBlob() {},
    openLayer: async () => ({
      held: async () => undefined,
      async *fetch(chunks) {
        for (const number of chunks) yield { number, bytes }
      },
    }),
    close: async () => {},
  })
  const wrong = sourceOf(Buffer.alloc(MiB))
  await push({ sources: [wrong, sourceOf(below.subarray(0, MiB))] })
  await expect(push({ sources: [wrong] })).rejects.toMatchObject({ code: 'layerIncomplete' })
})

test('a chunk that has rotted here is not sent', async () => {
  const folder = temporaryFolder()
  const bytes = halfNoise(2 * MiB, 12)
  const image = writeLayeredImage(join(folder, 'image'), 4 * MiB, [{ data: [[0, bytes]] }])
  bytes[MiB + 5] = (bytes[MiB + 5] ?? 0) ^ 1
  writeFileSync(join(image.path, imageFiles.disk), Buffer.concat([bytes, Buffer.alloc(2 * MiB)]))
  const repository = newRepository()
  const push = createTestPusher(folder)
  await expect(push({ image, repository, tag: 'v1' })).rejects.toMatchObject({
    code: 'chunkInvalid',
  })
  expect(await client.readManifest(repository, 'v1', signal)).toBeUndefined()
  expect(readdirSync(join(folder, 'pusher/work'))).toEqual([])
})
