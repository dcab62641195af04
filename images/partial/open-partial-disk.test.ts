import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { appendFileSync, readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { expect, onTestFinished, test } from 'vitest'
import { defaultLimits } from '../../base/limits.ts'
import { createSeededRandom, randomInteger } from '../../base/random.ts'
import { writeSparseFile } from '../../test/support/images.ts'
import { type RandomImage, randomImage } from '../../test/support/random-layers.ts'
import { temporaryFolder } from '../../test/support/temporary-folder.ts'
import { fitLayers } from '../fit-layers.ts'
import { blockBytes } from '../layer-index.ts'
import { type FillablePartialDisk, openPartialDisk } from './open-partial-disk.ts'
import type { ChunkName } from './partial-disk.ts'

/** A folder with the empty disk of an image. */
function emptyFolder({ config }: RandomImage): string {
  const folder = temporaryFolder()
  writeSparseFile(join(folder, 'disk.raw'), config.virtualSizeBytes, [])
  return folder
}

async function openDisk(folder: string, image: RandomImage): Promise<FillablePartialDisk> {
  const { config } = image
  const layers = fitLayers(config, image.encoded, defaultLimits)
  const disk = await openPartialDisk({ folder, config, layers })
  onTestFinished(() => disk.close().catch(() => {}))
  return disk
}

const bytesOf = ({ chunks }: RandomImage, { layer, chunk }: ChunkName): Buffer =>
  chunks[layer]?.[chunk] ?? Buffer.alloc(0)

/** Whatever counts as here is right: the disk where nothing is missing, and chunks seen whole. */
async function checkDisk(disk: FillablePartialDisk, image: RandomImage): Promise<void> {
  for (let at = 0; at < image.disk.length; at += blockBytes) {
    if (disk.missing(at, blockBytes).length > 0) continue
    const right = image.disk.subarray(at, at + blockBytes)
    expect((await disk.read(at, blockBytes)).equals(right), `block at ${at}`).toBe(true)
  }
  for (const [layer, chunks] of image.chunks.entries()) {
    const bits = disk.servable(layer)
    for (const [chunk, bytes] of chunks.entries()) {
      if (((bits[chunk >> 3] ?? 0) & (1 << (chunk & 7))) === 0) continue
      expect((await disk.readChunk({ layer, chunk })).equals(bytes)).toBe(true)
    }
  }
}

test('chunks in any order make the disk, at every step and through restarts', async () => {
  await fc.assert(
    fc.asyncProperty(fc.integer(), fc.integer({ min: 1, max: 3 }), async (seed, layerCount) => {
      const image = randomImage({ seed, layerCount, diskBlocks: 96 })
      const folder = emptyFolder(image)
      const random = createSeededRandom(seed + 1)
      let disk = await openDisk(folder, image)
      const durable = new Set<string>()
      for (let turn = 0; [...disk.allMissing()].length > 0; turn++) {
        expect(turn).toBeLessThan(1000)
        const missing = [...disk.allMissing()]
        const name = missing[randomInteger(random, missing.length)] ?? { layer: 0, chunk: 0 }
        await disk.put(name, bytesOf(image, name))
        await disk.put(name, bytesOf(image, name))
        const step = randomInteger(random, 8)
        if (step < 2) for (const each of await disk.flush()) durable.add(JSON.stringify(each))
        if (step > 0) continue
        await checkDisk(disk, image)
        await disk.close()
        disk = await openDisk(folder, image)
        for (const each of durable) expect(disk.has(JSON.parse(each))).toBe(true)
      }
      await checkDisk(disk, image)
      expect(disk.presentBytes()).toBe(disk.wantedBytes)
      expect((await disk.read(0, image.disk.length)).equals(image.disk)).toBe(true)
      await disk.close()
    }),
    { numRuns: 40 },
  )
})

test('what is missing for a range is what its blocks come from', async () => {
  const image = randomImage({ seed: 5, layerCount: 3, diskBlocks: 256 })
  const disk = await openDisk(emptyFolder(image), image)
  const all = [...disk.allMissing()]
  expect(all).toEqual(
    all.filter(({ layer, chunk }) => disk.layers[layer]?.covered.get(chunk)?.length !== 0),
  )
  const key = (names: ChunkName[]) => new Set(names.map(name => JSON.stringify(name)))
  expect(key(disk.missing(0, image.disk.length))).toEqual(key(all))
  for (let at = 0; at < 256; at += 7) {
    const length = 5 * blockBytes - 100
    const single = Array.from({ length: 5 }, (_, more) =>
      disk.missing((at + more) * blockBytes + 50, 10),
    )
    expect(key(disk.missing(at * blockBytes, length))).toEqual(key(single.flat()))
  }
})

test('bytes that are not the chunk are refused, and nothing of them is written', async () => {
  const image = randomImage({ seed: 3, layerCount: 1, diskBlocks: 32 })
  const folder = emptyFolder(image)
  const disk = await openDisk(folder, image)
  const name = { layer: 0, chunk: 0 }
  const right = bytesOf(image, name)
  const wrong = Buffer.from(right)
  wrong[right.length - 1] = (wrong.at(-1) ?? 0) ^ 1
  const longer = Buffer.concat([right, right])
  for (const bytes of [wrong, longer, right.subarray(0, blockBytes - 1), Buffer.alloc(0)]) {
    await expect(disk.put(name, bytes)).rejects.toMatchObject({ code: 'chunkInvalid' })
  }
  expect(readFileSync(join(folder, 'disk.raw')).every(byte => byte === 0)).toBe(true)
  await expect(disk.readChunk(name)).rejects.toMatchObject({ code: 'chunkInvalid' })
  await expect(disk.put({ layer: 0, chunk: 9999 }, right)).rejects.toThrow('assertion')
  expect(disk.has(name)).toBe(false)
  await disk.put(name, right)
  expect(disk.has(name)).toBe(true)
  // Rot on the disk is not handed on.
  const place = image.layers[0]?.chunks[0]?.extents[0]?.offsetBytes ?? 0
  const bytes = readFileSync(join(folder, 'disk.raw'))
  bytes[place] = (bytes[place] ?? 0) ^ 1
  writeFileSync(join(folder, 'disk.raw'), bytes)
  await expect(disk.readChunk(name)).rejects.toMatchObject({ code: 'chunkInvalid' })
})

test('a journal that is torn, damaged or of another image vouches for nothing wrong', async () => {
  const image = randomImage({ seed: 11, layerCount: 2, diskBlocks: 128 })
  const folder = emptyFolder(image)
  const path = join(folder, 'present')
  let disk = await openDisk(folder, image)
  const names = [...disk.allMissing()].slice(0, 9)
  for (const name of names) await disk.put(name, bytesOf(image, name))
  expect(await disk.flush()).toEqual(names)
  expect(await disk.flush()).toEqual([])
  await disk.close()
  const whole = readFileSync(path)
  expect(whole.length).toBe(9 * 8)
  const here = async () => {
    const opened = await openDisk(folder, image)
    const found = names.filter(name => opened.has(name)).length
    await opened.close()
    return found
  }
  truncateSync(path, 8 * 8 + 3)
  expect(await here()).toBe(8)
  appendFileSync(path, Buffer.alloc(4096))
  expect(await here()).toBe(8)
  const damaged = Buffer.from(whole)
  damaged[16] = (damaged[16] ?? 0) ^ 2
  writeFileSync(path, damaged)
  expect(await here()).toBe(8)
  writeFileSync(path, Buffer.concat([whole, whole]))
  expect(await here()).toBe(9)
  expect(readFileSync(path).length).toBe(9 * 8)
  const other = randomImage({ seed: 12, layerCount: 2, diskBlocks: 128 })
  disk = await openDisk(folder, other)
  expect(disk.presentBytes()).toBe(0)
})

test('a disk of another size is not opened', async () => {
  const image = randomImage({ seed: 2, layerCount: 1, diskBlocks: 16 })
  const folder = emptyFolder(image)
  truncateSync(join(folder, 'disk.raw'), 15 * blockBytes)
  await expect(openDisk(folder, image)).rejects.toThrow('has a disk of')
})

test('whatever kill -9 leaves, nothing that is said to be here is wrong', async () => {
  const image = randomImage({ seed: 21, layerCount: 3, diskBlocks: 4000 })
  const folder = emptyFolder(image)
  const random = createSeededRandom(4)
  let before = 0
  for (let round = 0; round < 4; round++) {
    const child = spawn(
      process.execPath,
      [join(import.meta.dirname, '../../test/support/fill-child.ts'), folder],
      { stdio: ['ignore', 'pipe', 'inherit'] },
    )
    onTestFinished(() => void child.kill('SIGKILL'))
    let said = 0
    const flushes = 1 + randomInteger(random, 4)
    for await (const part of child.stdout) {
      said += String(part).split('\n').length - 1
      if (said >= flushes) break
    }
    child.kill('SIGKILL')
    if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
    const disk = await openDisk(folder, image)
    await checkDisk(disk, image)
    expect(disk.presentBytes()).toBeGreaterThan(before)
    before = disk.presentBytes()
    await disk.close()
  }
})
