import { readFileSync, statSync } from 'node:fs'
import { chmod, open } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { digestOfBytes, noise, openTestStore, storeFolders } from '../test/support/images.ts'
import { type RandomImage, randomImage } from '../test/support/random-layers.ts'
import { fillImage, streamOf } from '../test/support/store-images.ts'
import { temporaryFolder } from '../test/support/temporary-folder.ts'
import { composeLayers, visibleExtents } from './composition.ts'
import { blockBytes } from './layer-index.ts'
import type { RepairSource } from './verify-image.ts'

const { signal } = new AbortController()

async function damage(path: string, at: number): Promise<void> {
  const { mode } = statSync(path)
  await chmod(path, 0o644)
  const handle = await open(path, 'r+')
  await handle.write(Buffer.of(0x5a), 0, 1, at)
  await handle.close()
  await chmod(path, mode)
}

/** Where the disk has a chunk seen whole, one seen in part, and a hole. */
function placesIn(image: RandomImage): { whole: number; part: number; hole: number } {
  const found = { whole: -1, part: -1, hole: -1 }
  const seen = new Set<number>()
  for (const view of composeLayers(image.layers)) {
    for (const chunk of view.index.chunks.keys()) {
      const extents = visibleExtents(view, chunk)
      const [first] = extents
      if (first === undefined) continue
      found[view.covered.has(chunk) ? 'part' : 'whole'] = first.offsetBytes
      for (const { offsetBytes, lengthBytes } of extents) {
        for (let at = 0; at < lengthBytes; at += blockBytes) seen.add(offsetBytes + at)
      }
    }
  }
  for (let at = 0; at < image.disk.length; at += blockBytes) if (!seen.has(at)) found.hole = at
  return found
}

test('an image of several layers is verified, and repaired with verified bytes only', async () => {
  const images = join(temporaryFolder(), 'images')
  const store = await openTestStore(images)
  const image = randomImage({ seed: 41, layerCount: 3, diskBlocks: 300 })
  const kernel = noise(20_000)
  image.config.boot = { kernelDigest: digestOfBytes(kernel) }
  const { digest } = await fillImage(store, image)
  await store.storeBlob(digest, 'kernel', { stream: streamOf(kernel), signal })
  await store.complete(digest)
  const clean = await store.verify(digest)
  expect(clean.bad).toEqual([])
  expect(clean.uncheckedChunks).toBeGreaterThan(3)
  const places = placesIn(image)
  const disk = store.diskPath(digest)
  const layer = join(disk, '../layer.1')
  for (const place of Object.values(places)) await damage(disk, place + 10)
  await damage(store.kernelPath(digest) ?? '', 70)
  await damage(layer, 30)
  // Without its layers nothing can be said of the disk.
  const blind = await store.verify(digest)
  expect(blind.bad.map(({ file }) => file)).toEqual(['layer', 'kernel'])
  const right = ({ chunks }: RandomImage): RepairSource => ({
    fetchChunk: async (layerDigest, index, number) => {
      const at = image.config.layers.findIndex(each => each.digest === layerDigest)
      expect(index).toEqual(image.layers[at])
      return chunks[at]?.[number]
    },
    fetchBlob: async wanted =>
      [kernel, ...image.encoded].flatMap(bytes =>
        digestOfBytes(bytes) === wanted ? [streamOf(bytes)] : [],
      )[0],
  })
  const liar: RepairSource = {
    ...right(image),
    fetchChunk: async (_, index, number) =>
      noise(index.chunks[number]?.extents.reduce((sum, each) => sum + each.lengthBytes, 0) ?? 0),
  }
  const failing: RepairSource = {
    fetchChunk: async () => Promise.reject(new Error('gone')),
    fetchBlob: async () => Promise.reject(new Error('gone')),
  }
  const before = readFileSync(disk)
  const none = await store.verify(digest, { repair: failing })
  expect(none.bad.every(({ isRepaired }) => !isRepaired)).toBe(true)
  expect(readFileSync(disk).equals(before)).toBe(true)
  const lied = await store.verify(digest, { repair: liar })
  expect(lied.bad.filter(({ isRepaired }) => isRepaired).map(({ file }) => file)).toEqual([
    'layer',
    'kernel',
    'disk',
  ])
  const rest = (await store.verify(digest)).bad
  expect(rest.map(({ offset }) => offset)).toEqual([places.whole])
  const mended = await store.verify(digest, { repair: right(image) })
  expect(mended.uncheckedChunks).toBe(0)
  expect(new Set(mended.bad.map(({ offset }) => offset))).toEqual(
    new Set([places.whole, places.part]),
  )
  expect(mended.bad.every(({ isRepaired }) => isRepaired)).toBe(true)
  expect(readFileSync(disk).equals(image.disk)).toBe(true)
  expect(statSync(disk).mode & 0o777).toBe(0o444)
  expect((await store.verify(digest)).bad).toEqual([])
  expect(await storeFolders(images)).toMatchObject({ incoming: [] })
})

test('what a layer hides in part is compared with another image that has it whole', async () => {
  const store = await openTestStore(join(temporaryFolder(), 'images'))
  const base = randomImage({ seed: 42, layerCount: 1, diskBlocks: 300 })
  const image = randomImage({ seed: 43, layerCount: 2, diskBlocks: 300, base })
  const first = await fillImage(store, base)
  await store.complete(first.digest)
  const { digest } = await fillImage(store, image)
  await store.complete(digest)
  expect(await store.verify(digest)).toMatchObject({ uncheckedChunks: 0, bad: [] })
  const { part, whole } = placesIn(image)
  await damage(store.diskPath(digest), part)
  expect((await store.verify(digest)).bad).toMatchObject([{ file: 'disk', offset: part }])
  // Rot in the other is no proof against this one.
  await damage(store.diskPath(first.digest), part)
  expect(await store.verify(digest)).toMatchObject({ uncheckedChunks: 1, bad: [] })
  await damage(store.diskPath(digest), whole)
  expect((await store.verify(digest)).bad).toMatchObject([{ offset: whole }])
})
