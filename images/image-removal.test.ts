import { execFileSync } from 'node:child_process'
import { existsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { type Clock, systemClock } from '../base/clock.ts'
import { runCommand } from '../base/command.ts'
import { defaultLimits } from '../base/limits.ts'
import { silentLog } from '../base/log.ts'
import { systemRandom } from '../base/random.ts'
import { noise, storeFolders } from '../test/support/images.ts'
import { randomImage } from '../test/support/random-layers.ts'
import { sandboxIdentity } from '../test/support/sandbox-identity.ts'
import { contentOf, fillImage } from '../test/support/store-images.ts'
import { temporaryFolder } from '../test/support/temporary-folder.ts'
import { type ImageStore, openImageStore } from './image-store.ts'
import type { ImageStoreInit } from './store-context.ts'

const MiB = 1024 * 1024

/** A store with a quota, whose clock goes on by a minute at each look. */
async function openStore(
  folder: string,
  imageQuotaBytes: number,
  more: Partial<ImageStoreInit> = {},
): Promise<ImageStore> {
  let wallMs = 1e12
  const clock: Clock = {
    ...systemClock,
    wallMs: () => {
      wallMs += 60_000
      return wallMs
    },
  }
  const limits = { ...defaultLimits, imageReserveBytes: 0, imageQuotaBytes }
  const store = await openImageStore(
    { folder, limits, sandboxIdentity, ...more },
    { clock, log: silentLog, random: systemRandom, run: runCommand },
  )
  onTestFinished(() => store.close())
  return store
}

async function importNoise(store: ImageStore, seed: number, sizeBytes = 4 * MiB): Promise<string> {
  const path = join(temporaryFolder(), 'disk.raw')
  writeFileSync(path, noise(sizeBytes, seed))
  return (await store.importImage({ path }, { format: 'raw' })).digest
}

test('room is made by what was not used for the longest, never by what is needed', async () => {
  const images = join(temporaryFolder(), 'images')
  const kept = new Set<string>()
  const store = await openStore(images, 23 * MiB, {
    keep: ({ digest }) => kept.has(digest),
  })
  const [used, pinned, wanted, old, recent] = [
    await importNoise(store, 1),
    await importNoise(store, 2),
    await importNoise(store, 3),
    await importNoise(store, 4),
    await importNoise(store, 5),
  ]
  kept.add(wanted)
  await store.use(used, { uid: '1', name: 'a' })
  await store.pin(pinned)
  await store.use(old, { uid: '2', name: 'b' })
  await store.release(old, '2')
  const here = () => new Set(store.list().map(({ digest }) => digest))
  expect(await store.makeRoom(MiB)).toEqual({ removed: [], freedBytes: 0 })
  const sixth = await importNoise(store, 6)
  // What was used last stays, although it is older.
  expect(here()).toEqual(new Set([used, pinned, wanted, old, sixth]))
  expect(here().has(recent)).toBe(false)
  const image = randomImage({ seed: 7, layerCount: 1, diskBlocks: 3800 })
  const { digest } = await fillImage(store, image)
  expect(here()).toEqual(new Set([used, pinned, wanted]))
  // What is on its way is nobody's room.
  await expect(importNoise(store, 8, 16 * MiB)).rejects.toMatchObject({ code: 'diskFull' })
  const large = contentOf(randomImage({ seed: 9, layerCount: 1, diskBlocks: 9000 }))
  await expect(store.begin(large)).rejects.toMatchObject({ code: 'diskFull' })
  expect(store.partials().map(({ record }) => record.digest)).toEqual([digest])
  expect(here()).toEqual(new Set([used, pinned, wanted]))
  await store.complete(digest)
  const { removed, freedBytes } = await store.makeRoom(8 * MiB)
  expect(removed.map(record => record.digest)).toEqual([digest])
  expect(freedBytes).toBeGreaterThan(4 * MiB)
  expect(await storeFolders(images)).toMatchObject({ incoming: [] })
  const du = execFileSync('du', ['-s', '--block-size=1', images], { encoding: 'utf8' })
  expect(await store.usedBytes()).toBe(Number(du.split('\t')[0]))
})

test('whoever has the files of an image open lets go of them before they go', async () => {
  const seen: [string, boolean][] = []
  const evicted: string[] = []
  const store: ImageStore = await openStore(join(temporaryFolder(), 'images'), 14 * MiB, {
    async onRemove(digest) {
      const folder = store.partial(digest)?.folder ?? join(store.diskPath(digest), '..')
      seen.push([digest, existsSync(folder)])
      throw new Error('what others do wrong keeps nothing')
    },
    onEvicted: digest => evicted.push(digest),
  })
  const [one, two] = [await importNoise(store, 1), await importNoise(store, 2)]
  await store.remove(one)
  expect(seen).toEqual([[one, true]])
  const three = await importNoise(store, 3)
  const { digest } = await fillImage(store, randomImage({ seed: 4, layerCount: 1, diskBlocks: 90 }))
  await store.discard(digest)
  expect(evicted).toEqual([])
  await store.makeRoom(8 * MiB)
  expect(seen).toEqual([one, digest, two].map(each => [each, true]))
  expect(evicted).toEqual([two])
  expect(store.list().map(record => record.digest)).toEqual([three])
})
