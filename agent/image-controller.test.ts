import { rename } from 'node:fs/promises'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { expect, onTestFinished, test } from 'vitest'
import { systemClock } from '../base/clock.ts'
import { defaultLimits } from '../base/limits.ts'
import { silentLog } from '../base/log.ts'
import { systemRandom } from '../base/random.ts'
import { createEventRecorder } from '../cluster/event-recorder.ts'
import { dropHolder } from '../cluster/image-holders.ts'
import { createObjects, type Objects } from '../cluster/objects.ts'
import { createMemoryStore } from '../cluster/store/memory.ts'
import type { ImageStore } from '../images/image-store.ts'
import { hostKind } from '../resources/host.ts'
import { type Image, imageKind } from '../resources/image.ts'
import { namespaceKind } from '../resources/namespace.ts'
import { noise, openTestStore } from '../test/support/images.ts'
import { randomImage } from '../test/support/random-layers.ts'
import { fillImage } from '../test/support/store-images.ts'
import { temporaryFolder } from '../test/support/temporary-folder.ts'
import { type ImageController, imageGuard, startImageController } from './image-controller.ts'

const needs = { clock: systemClock, random: systemRandom, limits: defaultLimits, log: silentLog }

/** One daemon's part of the world: its own files, its own objects. */
class Bench {
  readonly folder = temporaryFolder()
  images: ImageStore
  readonly objects: Objects
  readonly host: string
  #controller: ImageController | undefined

  /** @param peer whose objects this one shares: another host of the same fleet */
  constructor(images: ImageStore, peer?: Bench) {
    this.images = images
    this.host = peer === undefined ? 'here' : 'there'
    if (peer !== undefined) {
      this.objects = peer.objects
      onTestFinished(() => this.stop())
      return
    }
    const store = createMemoryStore(needs)
    this.objects = createObjects({ guards: [imageGuard(images)] }, { ...needs, store })
    onTestFinished(async () => {
      await this.stop()
      await store.close()
    })
  }

  async start(): Promise<ImageController> {
    const { objects, images, host: hostName } = this
    const init = { component: 'test', host: hostName, windowMs: 1000 }
    const events = createEventRecorder(init, { ...needs, objects })
    const uploads = join(this.folder, 'uploads')
    const mine = { ...needs, objects, events, images, hostName, uploads }
    this.#controller = await startImageController(mine)
    return this.#controller
  }

  async stop(): Promise<void> {
    await this.#controller?.stop()
    this.#controller = undefined
  }

  async create(name: string): Promise<Image> {
    const metadata = { name, namespace: 'default' }
    const given: unknown = { apiVersion: 'macfleet.dev/v1', kind: 'Image', metadata, spec: {} }
    return await this.objects.create(imageKind, given as never)
  }

  get(name: string): Promise<Image | undefined> {
    return this.objects.find(imageKind, { name, namespace: 'default' })
  }

  until(name: string, what: (image: Image | undefined) => boolean): Promise<void> {
    return expect.poll(async () => what(await this.get(name)), { timeout: 5000 }).toBe(true)
  }
}

async function openBench(folder = join(temporaryFolder(), 'images')): Promise<Bench> {
  const bench = new Bench(await openTestStore(folder))
  const namespace = { apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'default' } } as const
  await bench.objects.create(namespaceKind, namespace)
  return bench
}

const disk = (seed = 1): Readable => Readable.from([noise(1024 * 1024, seed)])
const raw = { format: 'raw', arch: 'x86_64' } as const
const reference = { name: 'a', namespace: 'default' }
const importing = { phase: 'Importing' } as const
const ready = { phase: 'Ready' } as const
const upload = { format: 'raw', signal: new AbortController().signal } as const

test('an image becomes ready with its content, and both go together', async () => {
  const bench = await openBench()
  const controller = await bench.start()
  const image = await bench.create('a')
  const ready = await controller.receive(image, 'content', disk(), upload)
  expect(ready.status).toMatchObject({ phase: 'Ready', hosts: ['here'] })
  await expect(controller.receive(ready, 'content', disk(), upload)).rejects.toMatchObject({
    code: 'alreadyExists',
  })
  await bench.objects.remove(imageKind, image.metadata)
  await bench.until('a', found => found === undefined)
  expect(bench.images.list()).toEqual([])
})

test('two hosts hold one image, and the last to let go lets it go', async () => {
  const here = await openBench()
  const there = new Bench(await openTestStore(join(temporaryFolder(), 'images')), here)
  const host = { apiVersion: 'macfleet.dev/v1', kind: 'Host', spec: { schedulable: true } } as const
  for (const name of ['here', 'there']) {
    await here.objects.create(hostKind, { ...host, metadata: { name } })
  }
  const [one, other] = [await here.start(), await there.start()]
  const image = await one.receive(await here.create('a'), 'content', disk(), upload)
  await expect(other.receive(image, 'content', disk(2), upload)).rejects.toMatchObject({
    code: 'imageDiffers',
  })
  expect(there.images.list()).toEqual([])
  expect((await here.get('a'))?.status).toMatchObject({ phase: 'Ready', hosts: ['here'] })
  const both = await other.receive(image, 'content', disk(), upload)
  expect(both.status).toMatchObject({ phase: 'Ready', hosts: ['here', 'there'] })
  const digest = both.status?.digest ?? ''
  await there.images.use(digest, { uid: 'u', name: 'default/vm' })
  other.refresh()
  await here.until('a', found => found?.status?.users?.includes('default/vm') ?? false)
  await expect(here.objects.remove(imageKind, reference)).rejects.toMatchObject({
    code: 'imageInUse',
  })
  await there.images.release(digest, 'u')
  other.refresh()
  await here.until('a', found => found?.status?.users?.length === 0)
  await here.objects.remove(imageKind, reference)
  await here.until('a', found => found === undefined)
  expect([here.images.list(), there.images.list()]).toEqual([[], []])
})

test('an image goes though a host that was forgotten held and used it', async () => {
  const here = await openBench()
  const there = new Bench(await openTestStore(join(temporaryFolder(), 'images')), here)
  const host = { apiVersion: 'macfleet.dev/v1', kind: 'Host', spec: { schedulable: true } } as const
  for (const name of ['here', 'there']) {
    await here.objects.create(hostKind, { ...host, metadata: { name } })
  }
  const [one, other] = [await here.start(), await there.start()]
  const image = await one.receive(await here.create('a'), 'content', disk(), upload)
  const { digest = '' } = (await other.receive(image, 'content', disk(), upload)).status ?? {}
  await there.images.use(digest, { uid: 'u', name: 'default/vm' })
  other.refresh()
  await here.until('a', found => found?.status?.users?.includes('default/vm') ?? false)
  await there.stop()
  await dropHolder('there', here.objects)
  expect((await here.get('a'))?.status).toMatchObject({ hosts: ['here'], users: [] })
  await here.objects.remove(imageKind, reference)
  await here.until('a', found => found === undefined)
})

test('an image on its way to hosts goes when none of them has anything of it', async () => {
  const here = await openBench()
  const host = { apiVersion: 'macfleet.dev/v1', kind: 'Host', spec: { schedulable: true } } as const
  for (const name of ['here', 'there']) {
    await here.objects.create(hostKind, { ...host, metadata: { name } })
  }
  const content = randomImage({ seed: 3, layerCount: 1, diskBlocks: 90 })
  const { digest } = await fillImage(here.images, content, 2)
  await here.create('a')
  const filling = ['here', 'there'].map(name => ({ host: name, doneBytes: 1, totalBytes: 2 }))
  await here.objects.changeStatus(imageKind, reference, () => ({ ...ready, digest, filling }))
  const controller = await here.start()
  await here.objects.remove(imageKind, reference)
  // Its turn comes after the other's.
  await here.create('b')
  await here.objects.remove(imageKind, { name: 'b', namespace: 'default' })
  await here.until('b', image => image === undefined)
  const namesOf = (image: Image | undefined) => image?.status?.filling?.map(each => each.host)
  await expect
    .poll(() => here.get('a'))
    .toMatchObject({ metadata: { deletionTimestamp: expect.any(String) } })
  expect(namesOf(await here.get('a'))).toEqual(['here', 'there'])
  await here.images.discard(digest)
  controller.refresh()
  await here.until('a', image => namesOf(image)?.join() === 'there')
  await dropHolder('there', here.objects)
  await here.until('a', image => image === undefined)
})

test('content that two images share goes with the last', async () => {
  const bench = await openBench()
  const controller = await bench.start()
  for (const name of ['a', 'b']) {
    await controller.receive(await bench.create(name), 'content', disk(), upload)
  }
  expect(bench.images.list()).toHaveLength(1)
  await bench.objects.remove(imageKind, { name: 'a', namespace: 'default' })
  await bench.until('a', found => found === undefined)
  expect(bench.images.list()).toHaveLength(1)
  await bench.objects.remove(imageKind, { name: 'b', namespace: 'default' })
  await bench.until('b', found => found === undefined)
  expect(bench.images.list()).toEqual([])
})

test('an image under a disk is not deleted, and its refusal says under whose', async () => {
  const bench = await openBench()
  const controller = await bench.start()
  const image = await controller.receive(await bench.create('a'), 'content', disk(), upload)
  const digest = image.status?.digest ?? ''
  for (let count = 0; count < 12; count++) {
    await bench.images.use(digest, { uid: `u${count}`, name: `default/m${count}` })
  }
  await expect(bench.objects.remove(imageKind, image.metadata)).rejects.toThrow(
    /default\/m9, 2 more/,
  )
})

test('an import that breaks off leaves a failed image that can be sent again', async () => {
  const bench = await openBench()
  const controller = await bench.start()
  const image = await bench.create('a')
  const broken = Readable.from(
    (async function* () {
      yield noise(4096)
      throw new Error('the client left')
    })(),
  )
  await expect(controller.receive(image, 'content', broken, upload)).rejects.toThrow('client left')
  expect((await bench.get('a'))?.status).toMatchObject({ phase: 'Failed' })
  const ready = await controller.receive(image, 'content', disk(), upload)
  expect(ready.status?.phase).toBe('Ready')
})

test('an image that is being deleted takes no content', async () => {
  const bench = await openBench()
  const controller = await bench.start()
  const image = await bench.create('a')
  const deleting = { ...image, metadata: { ...image.metadata, deletionTimestamp: 'now' } }
  await expect(controller.receive(deleting, 'content', disk(), upload)).rejects.toMatchObject({
    code: 'notFound',
  })
})

test('content that comes in for an image which is gone does not stay', async () => {
  const bench = await openBench()
  const controller = await bench.start()
  const image = await bench.create('a')
  await bench.objects.remove(imageKind, image.metadata)
  await bench.until('a', found => found === undefined)
  await expect(controller.receive(image, 'content', disk(), upload)).rejects.toMatchObject({
    code: 'notFound',
  })
  expect(bench.images.list()).toEqual([])
})

test('content without an image goes when its import was cut off, else it stays', async () => {
  const bench = await openBench()
  await bench.images.importImage({ stream: disk() }, raw)
  await bench.start()
  await bench.stop()
  const older = bench.images.list().map(({ digest }) => digest)
  expect(older).toHaveLength(1)
  await bench.create('a')
  await bench.objects.changeStatus(imageKind, reference, () => importing)
  await bench.images.importImage({ stream: disk(2) }, raw)
  await bench.start()
  expect((await bench.get('a'))?.status?.phase).toBe('Failed')
  expect(bench.images.list().filter(({ digest }) => !older.includes(digest))).toEqual([])
})

test('an image whose content is missing says so, and is ready again when it is back', async () => {
  const folder = join(temporaryFolder(), 'images')
  const bench = await openBench(folder)
  const { digest } = await bench.images.importImage({ stream: disk() }, raw)
  await bench.create('a')
  await bench.objects.changeStatus(imageKind, reference, () => ({ ...ready, digest }))
  const path = join(folder, digest.slice('sha256:'.length))
  for (const [from, to, phase] of [
    [path, `${folder}-away`, 'Failed'],
    [`${folder}-away`, path, 'Ready'],
  ] as const) {
    await bench.stop()
    await bench.images.close()
    await rename(from, to)
    bench.images = await openTestStore(folder)
    await bench.start()
    await bench.until('a', image => image?.status?.phase === phase)
  }
  expect((await bench.get('a'))?.status).toMatchObject({ digest, hosts: ['here'] })
})
