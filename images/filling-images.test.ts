import { execFileSync } from 'node:child_process'
import {
  appendFileSync,
  existsSync,
  readdirSync,
  readFileSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { defaultLimits } from '../base/limits.ts'
import { digestOfBytes, noise, openTestStore, storeFolders } from '../test/support/images.ts'
import { type RandomImage, randomImage } from '../test/support/random-layers.ts'
import { contentOf, fillImage, streamOf } from '../test/support/store-images.ts'
import { temporaryFolder } from '../test/support/temporary-folder.ts'
import type { ImageConfig } from './image-record.ts'
import type { ImageStore } from './image-store.ts'
import { blockBytes } from './layer-index.ts'
import { openPartialFolder } from './partial/partial-folder.ts'

const { signal } = new AbortController()

const chunkCount = ({ chunks }: RandomImage): number => chunks.flat().length
const placesOf = async (store: ImageStore, image: RandomImage, layer = 0) =>
  Promise.all((image.layers[layer]?.chunks ?? []).map(({ digest }) => store.findChunk(digest)))

test('an image comes in parts, through a restart, and is listed when it is whole', async () => {
  const images = join(temporaryFolder(), 'images')
  let store = await openTestStore(images)
  const image = randomImage({ seed: 7, layerCount: 2, diskBlocks: 300 })
  const kernel = noise(50_000)
  image.config.boot = { kernelDigest: digestOfBytes(kernel) }
  image.config.nvramDigest = digestOfBytes(Buffer.from('nvram'))
  const { digest, put } = await fillImage(store, image, 20)
  expect(put).toBe(20)
  await store.use(digest, { uid: '1', name: 'team/build' })
  expect(store.list()).toEqual([])
  expect(store.get(digest)).toBeUndefined()
  expect(() => store.diskPath(digest)).toThrow()
  expect(store.kernelPath(digest)).toBeUndefined()
  await store.storeBlob(digest, 'kernel', { stream: streamOf(kernel), signal })
  expect(readFileSync(store.kernelPath(digest) ?? '').equals(kernel)).toBe(true)
  await expect(store.discard(digest)).rejects.toMatchObject({ code: 'imageInUse' })
  const noted = (await placesOf(store, image)).filter(place => place !== undefined)
  expect(noted.length).toBeGreaterThan(2)
  expect(noted[0]).toMatchObject({ partial: true, image: digest })
  await store.close()
  store = await openTestStore(images)
  expect(store.partials()).toMatchObject([
    {
      record: { digest },
      users: [{ uid: '1' }],
      missingBlobs: new Map([['nvram', expect.any(String)]]),
    },
  ])
  expect((await placesOf(store, image)).filter(place => place !== undefined)).toEqual(noted)
  const second = await fillImage(store, image)
  await expect(store.complete(digest)).rejects.toMatchObject({ code: 'imageFillEnded' })
  await store.storeBlob(digest, 'nvram', { stream: streamOf(Buffer.from('nvram')), signal })
  const record = await store.complete(digest)
  expect(second.put).toBeLessThan(chunkCount(image) - 19)
  expect(store.list()).toEqual([record])
  expect(store.partials()).toEqual([])
  expect(store.users(digest)).toEqual([{ uid: '1', name: 'team/build' }])
  const disk = store.diskPath(digest)
  expect(readFileSync(disk).equals(image.disk)).toBe(true)
  expect(statSync(disk).mode & 0o777).toBe(0o444)
  expect(readdirSync(join(disk, '..')).sort()).toEqual(
    ['config.json', 'disk.raw', 'kernel', 'layer.0', 'layer.1', 'nvram', 'state.json'].sort(),
  )
  expect(await placesOf(store, image, 1)).toContainEqual(
    expect.objectContaining({ partial: false, image: digest, path: disk }),
  )
  expect(await store.begin(contentOf(image))).toBeUndefined()
  const du = execFileSync('du', ['-s', '--block-size=1', images], { encoding: 'utf8' })
  expect(await store.usedBytes()).toBe(Number(du.split('\t')[0]))
  await store.close()
  store = await openTestStore(images)
  expect(store.list()).toEqual([record])
})

test('what images here have is copied, and only the rest has to come', async () => {
  const store = await openTestStore(join(temporaryFolder(), 'images'))
  const base = randomImage({ seed: 1, layerCount: 1, diskBlocks: 400 })
  const one = randomImage({ seed: 2, layerCount: 2, diskBlocks: 450, base })
  const other = randomImage({ seed: 3, layerCount: 3, diskBlocks: 420, base })
  await store.complete((await fillImage(store, one)).digest)
  const { digest, put } = await fillImage(store, other)
  const partial = store.partial(digest)
  expect(partial?.localBytes).toBeGreaterThan(10 * blockBytes)
  expect(put).toBeLessThan(chunkCount(other))
  // What the first hides of the base in part it can't give; its own second layer nobody needs.
  await store.complete(digest)
  expect(readFileSync(store.diskPath(digest)).equals(other.disk)).toBe(true)
  // A chain that is here as it is: nothing but the new layer has to come.
  const longer = randomImage({ seed: 4, layerCount: 4, diskBlocks: 420, base: other })
  const grown = await fillImage(store, longer)
  expect(grown.put).toBeLessThanOrEqual(longer.chunks[3]?.length ?? 0)
  await store.complete(grown.digest)
  expect(readFileSync(store.diskPath(grown.digest)).equals(longer.disk)).toBe(true)
})

test('another image of the same disk needs no bytes and takes no room', async () => {
  const images = join(temporaryFolder(), 'images')
  const store = await openTestStore(images)
  const image = randomImage({ seed: 6, layerCount: 2, diskBlocks: 2000 })
  const first = await fillImage(store, image)
  await store.complete(first.digest)
  const usedBefore = await store.usedBytes()
  const twin = { ...image, config: { ...image.config, defaults: { cpu: 2 } } }
  const second = await fillImage(store, twin)
  expect(second.put).toBe(0)
  await store.complete(second.digest)
  expect((await store.usedBytes()) - usedBefore).toBeLessThan(200_000)
  const inodes = [first, second].map(({ digest }) => statSync(store.diskPath(digest)).ino)
  expect(new Set(inodes).size).toBe(1)
})

test('configs that do not fit their layers are refused, and nothing stays', async () => {
  const images = join(temporaryFolder(), 'images')
  const store = await openTestStore(images)
  const image = randomImage({ seed: 8, layerCount: 2, diskBlocks: 64 })
  const { config, encoded } = image
  const refused = async (changed: Partial<ImageConfig>, code: string, given = encoded) => {
    const asked = store.begin({ config: { ...config, ...changed }, layers: given })
    await expect(asked).rejects.toMatchObject({ code })
  }
  const [base] = config.layers
  const [baseBytes = Buffer.alloc(0)] = encoded
  if (!base) throw new Error('there are two layers')
  await refused({}, 'imageConfigInvalid', [baseBytes])
  await refused({}, 'imageConfigInvalid', [...encoded].reverse())
  await refused({}, 'layerIndexInvalid', [baseBytes, noise(100)])
  await refused({ layers: [] }, 'imageConfigInvalid', [])
  const many = Array.from({ length: 10_000 }, () => base)
  await refused({ layers: many }, 'imageConfigInvalid', [])
  await refused({ virtualSizeBytes: 4097 }, 'imageConfigInvalid')
  const firmware = { firmware: 'coreboot' } as unknown as Partial<ImageConfig>
  await refused(firmware, 'imageConfigInvalid')
  expect(await storeFolders(images)).toEqual({ images: [], incoming: [] })
  expect(readdirSync(join(images, 'filling'))).toEqual([])
})

test('parts that are not what they should be are refused', async () => {
  const store = await openTestStore(join(temporaryFolder(), 'images'), {
    limits: { bootFileBytes: 100_000 },
  })
  const image = randomImage({ seed: 9, layerCount: 1, diskBlocks: 64 })
  const large = noise(100_001)
  image.config.boot = { kernelDigest: digestOfBytes(large) }
  const { digest } = await fillImage(store, image)
  const store1 = (kind: 'kernel' | 'nvram', bytes: Uint8Array) =>
    store.storeBlob(digest, kind, { stream: streamOf(bytes), signal })
  await expect(store1('kernel', noise(99))).rejects.toMatchObject({ code: 'contentDiffers' })
  await expect(store1('kernel', large)).rejects.toMatchObject({ code: 'imageRefused' })
  await expect(store1('nvram', noise(9))).rejects.toMatchObject({ code: 'notFound' })
  await expect(store.complete(digest)).rejects.toMatchObject({ code: 'imageFillEnded' })
  expect(store.partial(digest)?.missingBlobs.has('kernel')).toBe(true)
})

test('an image that is given up frees its room', async () => {
  const images = join(temporaryFolder(), 'images')
  const store = await openTestStore(images)
  const image = randomImage({ seed: 10, layerCount: 1, diskBlocks: 500 })
  const { digest } = await fillImage(store, image)
  await store.pin(digest)
  await expect(store.discard(digest)).rejects.toMatchObject({ code: 'imagePinned' })
  await store.unpin(digest)
  const { freedBytes } = await store.discard(digest)
  expect(freedBytes).toBeGreaterThan(500_000)
  expect(store.partials()).toEqual([])
  expect((await placesOf(store, image)).every(place => place === undefined)).toBe(true)
  expect(readdirSync(join(images, 'filling'))).toEqual([])
  await expect(store.discard(digest)).rejects.toMatchObject({ code: 'notFound' })
})

test('what came of an image and is damaged comes anew after a restart', async () => {
  const images = join(temporaryFolder(), 'images')
  let store = await openTestStore(images)
  const all = [11, 12, 13, 14].map(seed => randomImage({ seed, layerCount: 2, diskBlocks: 64 }))
  const digests: string[] = []
  for (const image of all) digests.push((await fillImage(store, image, 3)).digest)
  await store.close()
  const pathOf = (at: number, name: string) =>
    join(images, 'filling', (digests[at] ?? '').slice('sha256:'.length), name)
  appendFileSync(pathOf(0, 'layer.1'), 'x')
  writeFileSync(pathOf(1, 'config.json'), '{}')
  writeFileSync(pathOf(2, 'present'), noise(4000))
  writeFileSync(join(images, 'filling', 'else'), '')
  store = await openTestStore(images)
  const left = store.partials().map(({ record }) => record.digest)
  expect(new Set(left)).toEqual(new Set(digests.slice(2)))
  expect(existsSync(join(images, 'filling', 'else'))).toBe(false)
  const damaged = all[2]
  if (!damaged) throw new Error('there are four')
  const again = await fillImage(store, damaged)
  await store.complete(again.digest)
  expect(readFileSync(store.diskPath(again.digest)).equals(damaged.disk)).toBe(true)
})

test('an image that arrives by two ways has the users of both', async () => {
  const store = await openTestStore(join(temporaryFolder(), 'images'))
  const source = await openTestStore(join(temporaryFolder(), 'images'))
  const path = join(temporaryFolder(), 'disk.raw')
  writeFileSync(path, noise(3 * 1024 * 1024))
  const { digest } = await source.importImage({ path }, { format: 'raw' })
  const folder = join(source.diskPath(digest), '..')
  const config = JSON.parse(readFileSync(join(folder, 'config.json'), 'utf8'))
  const { architecture: _, os: _os, rootfs: _rootfs, ...own } = config
  const layers = [readFileSync(join(folder, 'layer.0'))]
  expect((await store.begin({ config: own, layers }))?.record.digest).toBe(digest)
  const twice = await Promise.all([
    store.begin({ config: own, layers }),
    store.begin({ config: own, layers }),
  ])
  expect(twice.map(each => each?.record.digest)).toEqual([digest, digest])
  await store.use(digest, { uid: '1', name: 'a' })
  await store.importImage({ path }, { format: 'raw' })
  await expect(store.complete(digest)).rejects.toMatchObject({ code: 'imageFillEnded' })
  const disk = await openPartialFolder(store.partial(digest)?.folder ?? '', digest, defaultLimits)
  for (const name of disk.allMissing()) {
    const extents = disk.layers[0]?.index.chunks[name.chunk]?.extents ?? []
    const parts = extents.map(({ offsetBytes, lengthBytes }) =>
      readFileSync(path).subarray(offsetBytes, offsetBytes + lengthBytes),
    )
    await disk.put(name, Buffer.concat(parts))
  }
  await disk.flush()
  await disk.close()
  await store.complete(digest)
  expect(store.partials()).toEqual([])
  expect(store.users(digest)).toEqual([{ uid: '1', name: 'a' }])
  const { layers: views } = disk
  const [chunk] = views[0]?.index.chunks ?? []
  expect(await store.findChunk(chunk?.digest ?? '')).toMatchObject({ partial: false })
})

test('a layer upon an image makes another, whole or not at all', async () => {
  const images = join(temporaryFolder(), 'images')
  const store = await openTestStore(images)
  const base = randomImage({ seed: 31, layerCount: 2, diskBlocks: 300 })
  const kernel = noise(5000)
  base.config.boot = { kernelDigest: digestOfBytes(kernel), commandLine: 'quiet' }
  const { digest: parent } = await fillImage(store, base)
  await store.storeBlob(parent, 'kernel', { stream: streamOf(kernel), signal })
  await store.complete(parent)
  const grown = randomImage({ seed: 32, layerCount: 3, diskBlocks: 340, base })
  const [, , encodedLayer = Buffer.alloc(0)] = grown.encoded
  const [, , chunks = []] = grown.chunks
  const readChunk = async (number: number) => chunks[number] ?? Buffer.alloc(0)
  const wrong = store.derive({ parent, encodedLayer, readChunk: async () => Buffer.alloc(4096) })
  await expect(wrong).rejects.toMatchObject({ code: 'chunkInvalid' })
  const ended = AbortSignal.abort(new Error('enough'))
  const aborted = store.derive({ parent, encodedLayer, readChunk, signal: ended })
  await expect(aborted).rejects.toThrow('enough')
  const shrinking = randomImage({ seed: 33, layerCount: 1, diskBlocks: 100 }).encoded[0]
  const smaller = store.derive({ parent, encodedLayer: shrinking ?? Buffer.alloc(0), readChunk })
  await expect(smaller).rejects.toMatchObject({ code: 'imageConfigInvalid' })
  expect(await storeFolders(images)).toMatchObject({ incoming: [] })
  const record = await store.derive({ parent, encodedLayer, readChunk })
  expect(record.boot).toEqual(base.config.boot)
  expect(record.layerDigests.slice(0, 2)).toEqual(store.get(parent)?.layerDigests)
  expect(readFileSync(store.diskPath(record.digest)).equals(grown.disk)).toBe(true)
  expect(readFileSync(store.kernelPath(record.digest) ?? '').equals(kernel)).toBe(true)
  expect(await store.derive({ parent, encodedLayer, readChunk })).toEqual(record)
  expect(readdirSync(join(store.diskPath(record.digest), '..'))).not.toContain('present')
  // A parent whose bytes rotted makes no image.
  const rotten = readFileSync(store.diskPath(parent))
  execFileSync('chmod', ['u+w', store.diskPath(parent)])
  writeFileSync(
    store.diskPath(parent),
    rotten.map(byte => byte ^ 1),
  )
  await store.remove(record.digest)
  const failed = store.derive({ parent, encodedLayer, readChunk })
  await expect(failed).rejects.toMatchObject({ code: 'chunkInvalid' })
  expect(await storeFolders(images)).toMatchObject({ incoming: [] })
})
