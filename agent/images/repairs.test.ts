import { statSync } from 'node:fs'
import { chmod, open } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { systemClock } from '../../base/clock.ts'
import { defaultLimits } from '../../base/limits.ts'
import { silentLog } from '../../base/log.ts'
import { systemRandom } from '../../base/random.ts'
import { createEventRecorder } from '../../cluster/event-recorder.ts'
import { createObjects } from '../../cluster/objects.ts'
import { createMemoryStore } from '../../cluster/store/memory.ts'
import { eventKind } from '../../resources/event.ts'
import { imageKind } from '../../resources/image.ts'
import { namespaceKind } from '../../resources/namespace.ts'
import {
  askedChunks,
  createOpener,
  libraryOf,
  setFaults,
  writeSourceFolder,
} from '../../test/support/folder-sources.ts'
import { openTestStore } from '../../test/support/images.ts'
import { randomImage } from '../../test/support/random-layers.ts'
import { fillImage } from '../../test/support/store-images.ts'
import { temporaryFolder } from '../../test/support/temporary-folder.ts'
import { createImageRepairs } from './repairs.ts'

const needs = { clock: systemClock, random: systemRandom, limits: defaultLimits, log: silentLog }
const { signal } = new AbortController()

/** An image here, two folders that have it too, and its object. */
async function openBench() {
  const folder = temporaryFolder()
  const images = await openTestStore(join(folder, 'images'))
  const content = randomImage({ seed: 8, layerCount: 1, diskBlocks: 200 })
  const { digest } = await fillImage(images, content)
  await images.complete(digest)
  const folders = [join(folder, 'lying'), join(folder, 'right')] as const
  for (const path of folders) writeSourceFolder(path, content)
  const store = createMemoryStore(needs)
  const objects = createObjects({}, { ...needs, store })
  const events = createEventRecorder(
    { component: 'test', host: 'here', windowMs: 1000 },
    { ...needs, objects },
  )
  const mended: string[] = []
  const asked: string[] = []
  const repairs = createImageRepairs({
    ...{ ...needs, images, objects, events },
    origins: {
      async of({ metadata }) {
        asked.push(metadata.name)
        return { sources: folders.map(libraryOf) }
      },
    },
    openSource: createOpener({ ...needs, tls: () => undefined }),
    onMended: each => mended.push(each),
  })
  onTestFinished(async () => {
    await repairs.stop()
    await store.close()
  })
  const namespace = { apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'default' } } as const
  await objects.create(namespaceKind, namespace)
  const create = async (name: string, named: string) => {
    const metadata = { name, namespace: 'default' }
    const given: unknown = { apiVersion: 'macfleet.dev/v1', kind: 'Image', metadata, spec: {} }
    await objects.create(imageKind, given as never)
    const status = { phase: 'Ready', digest: named } as const
    const created = await objects.changeStatus(imageKind, metadata, () => status)
    if (created === undefined) throw new Error('the image is gone')
    return created
  }
  const image = await create('a', digest)
  const reasons = async () => {
    await events.flush()
    return (await objects.list(eventKind)).items.map(({ reason }) => reason).sort()
  }
  const [first] = content.layers[0]?.chunks[0]?.extents ?? []
  const damage = async (): Promise<void> => {
    const path = images.diskPath(digest)
    const { mode } = statSync(path)
    await chmod(path, 0o644)
    const handle = await open(path, 'r+')
    const at = (first?.offsetBytes ?? 0) + 9
    const { buffer } = await handle.read(Buffer.alloc(1), 0, 1, at)
    await handle.write(Buffer.of((buffer[0] ?? 0) ^ 1), 0, 1, at)
    await handle.close()
    await chmod(path, mode)
  }
  return { digest, image, create, repairs, folders, mended, asked, damage, reasons }
}

test('a damaged chunk comes anew from a source that tells the truth', async () => {
  const { image, repairs, folders, mended, damage, digest, reasons } = await openBench()
  setFaults(folders[0], { rot: 'all' })
  await damage()
  const found = await repairs.verify(image, { repair: false, signal })
  expect(found.bad).toMatchObject([{ file: 'disk' }])
  expect(askedChunks(folders[1])).toBe(0)
  const repaired = await repairs.verify(image, { repair: true, signal })
  expect(repaired.bad).toMatchObject([{ file: 'disk', isRepaired: true }])
  expect(folders.map(askedChunks)).toEqual([1, 1])
  expect(mended).toEqual([digest])
  expect((await repairs.verify(image, { repair: true, signal })).bad).toEqual([])
  expect(await reasons()).toEqual(['Repaired'])
})

test('what nobody has stays damaged, and that is told', async () => {
  const { image, repairs, folders, mended, damage, reasons } = await openBench()
  for (const folder of folders) setFaults(folder, { down: true })
  await damage()
  const { bad } = await repairs.verify(image, { repair: true, signal })
  expect(bad).toMatchObject([{ file: 'disk' }])
  expect(bad[0]?.isRepaired).toBeUndefined()
  expect(mended).toEqual([])
  expect(await reasons()).toEqual(['RepairFailed'])
})

test('what is found rotten while it is given to others is repaired by itself, once', async () => {
  const { image, create, repairs, mended, asked, damage, digest, reasons } = await openBench()
  await damage()
  const rot = { image: digest, part: { layer: 0, chunk: 0 }, detail: 'it differs' }
  repairs.onRot(rot)
  repairs.onRot(rot)
  await expect.poll(() => mended).toEqual([digest])
  expect((await repairs.verify(image, { repair: false, signal })).bad).toEqual([])
  await damage()
  repairs.onRot(rot)
  // Its turn comes after the other's.
  const other = `sha256:${'2'.repeat(64)}`
  await create('b', other)
  repairs.onRot({ ...rot, image: other })
  await expect.poll(() => asked).toContain('b')
  expect(asked).toEqual(['a', 'b'])
  expect((await repairs.verify(image, { repair: false, signal })).bad).toHaveLength(1)
  expect(await reasons()).toEqual(['Repaired', 'Rotten', 'Rotten'])
})
