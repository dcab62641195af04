import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { systemClock } from '../base/clock.ts'
import { failure } from '../base/errors.ts'
import { defaultLimits } from '../base/limits.ts'
import { silentLog } from '../base/log.ts'
import { systemRandom } from '../base/random.ts'
import { imageKind } from '../resources/image.ts'
import type { Metadata } from '../resources/metadata.ts'
import { type Namespace, namespaceKind } from '../resources/namespace.ts'
import {
  type VirtualMachine,
  type VirtualMachineStatus,
  virtualMachineKind as vmKind,
} from '../resources/virtual-machine.ts'
import { createObjects, type Guard, type Objects } from './objects.ts'
import { openLevelStore } from './store/level.ts'
import { createMemoryStore } from './store/memory.ts'
import type { Store } from './store/store.ts'

const components = { clock: systemClock, random: systemRandom, limits: defaultLimits }

interface Bench {
  objects: Objects
  store: Store
}

const namespace = (name: string): Namespace => ({
  apiVersion: 'v1',
  kind: 'Namespace',
  metadata: { name },
})

/** What a user sends: the schema fills in the rest. */
function machine(metadata: Partial<Metadata>, spec: object = {}): VirtualMachine {
  const object: unknown = {
    apiVersion: 'macfleet.dev/v1',
    kind: 'VirtualMachine',
    metadata: { namespace: 'default', ...metadata },
    spec: { image: 'micro', ...spec },
  }
  return object as VirtualMachine
}

const a = { name: 'a', namespace: 'default' }
const running: VirtualMachineStatus = { phase: 'Running' }

let folder: string
let opened: Store[] = []
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'macfleet-objects-'))
})
afterEach(async () => {
  for (const store of opened) await store.close()
  opened = []
  await rm(folder, { recursive: true, force: true })
})

const needs = { ...components, log: silentLog }
const stores: Record<string, () => Promise<Store>> = {
  memory: async () => createMemoryStore(needs),
  level: () => openLevelStore({ folder: join(folder, 'store') }, needs),
}

describe.each(Object.keys(stores))('objects over the store %s', name => {
  async function prepare(guards: readonly Guard[] = []): Promise<Bench> {
    const store = await stores[name]?.()
    if (store === undefined) throw new Error('no such store')
    opened.push(store)
    const objects = createObjects({ guards }, { ...components, store })
    for (const name of ['default', 'a', 'ab']) await objects.create(namespaceKind, namespace(name))
    return { objects, store }
  }

  describe('create', () => {
    test('gives what the server gives, and leaves out the status', async () => {
      const { objects, store } = await prepare()
      const given = {
        ...machine({ name: 'a', uid: 'mine', generation: 9 }),
        status: { phase: 'Running' as const },
      }
      const created = await objects.create(vmKind, given)
      expect(created.metadata).toMatchObject({
        name: 'a',
        generation: 1,
        finalizers: ['macfleet.dev/guest'],
        creationTimestamp: expect.stringMatching(/^\d{4}-.*Z$/),
        uid: expect.stringMatching(/^[0-9a-f-]{36}$/),
        resourceVersion: String(await store.revision()),
      })
      expect(created.status).toBeUndefined()
      expect(created.spec.memory).toBe('1Gi')
      expect(await objects.get(vmKind, a)).toEqual(created)
    })

    test('completes generateName, again when the name is taken', async () => {
      const { objects } = await prepare()
      const names = new Set<string>()
      for (let index = 0; index < 5; index++) {
        const created = await objects.create(vmKind, machine({ generateName: 'job-' }))
        expect(created.metadata.name).toMatch(/^job-[a-z0-9]{5}$/)
        names.add(created.metadata.name)
      }
      expect(names.size).toBe(5)
    })

    test('refuses what is taken, a namespace that is not there, and a wrong scope', async () => {
      const { objects } = await prepare()
      await objects.create(vmKind, machine({ name: 'a' }))
      await expect(objects.create(vmKind, machine({ name: 'a' }))).rejects.toMatchObject({
        code: 'alreadyExists',
        object: { kind: 'virtualmachines', group: 'macfleet.dev', name: 'a' },
      })
      await expect(
        objects.create(vmKind, machine({ name: 'a', namespace: 'nowhere' })),
      ).rejects.toMatchObject({ code: 'notFound', message: 'namespaces "nowhere" not found' })
      await expect(
        objects.create(namespaceKind, {
          ...namespace('x'),
          metadata: { name: 'x', namespace: 'a' },
        }),
      ).rejects.toMatchObject({ code: 'invalid' })
      await expect(
        objects.create(vmKind, machine({ name: 'b', namespace: undefined })),
      ).rejects.toMatchObject({ code: 'invalid' })
      await expect(objects.create(vmKind, machine({ name: 'a/../b' }))).rejects.toMatchObject({
        code: 'invalid',
      })
    })

    test('of ten at once with one name, one succeeds', async () => {
      const { objects } = await prepare()
      const all = await Promise.allSettled(
        Array.from({ length: 10 }, () => objects.create(vmKind, machine({ name: 'a' }))),
      )
      expect(all.filter(one => one.status === 'fulfilled')).toHaveLength(1)
    })

    test('a reference that no object can have finds nothing', async () => {
      const { objects } = await prepare()
      for (const name of ['', 'ä', 'a/b', '..', 'x'.repeat(300)]) {
        expect(await objects.find(imageKind, { name, namespace: 'default' })).toBeUndefined()
        await expect(objects.remove(vmKind, { name: 'a', namespace: name })).rejects.toMatchObject({
          code: 'notFound',
        })
      }
    })

    test('a dry run checks all and stores nothing', async () => {
      const { objects, store } = await prepare()
      const revision = await store.revision()
      const shown = await objects.create(vmKind, machine({ name: 'a' }), { dryRun: true })
      expect(shown.spec.cpu).toBe(1)
      expect(await store.revision()).toBe(revision)
    })
  })

  describe('replace and change', () => {
    test('keeps status and identity; counts changes of spec only', async () => {
      const { objects } = await prepare()
      const created = await objects.create(vmKind, machine({ name: 'a' }))
      await objects.changeStatus(vmKind, a, () => running)
      const labelled = await objects.replace(vmKind, machine({ name: 'a', labels: { job: '1' } }))
      expect(labelled.metadata).toMatchObject({ generation: 1, uid: created.metadata.uid })
      expect(labelled.status?.phase).toBe('Running')
      const stopped = await objects.replace(
        vmKind,
        machine({ name: 'a' }, { powerState: 'Stopped' }),
      )
      expect(stopped.metadata).toMatchObject({ generation: 2, finalizers: ['macfleet.dev/guest'] })
      expect(stopped.metadata.labels).toBeUndefined()
    })

    test('writes nothing when nothing changed', async () => {
      const { objects, store } = await prepare()
      const created = await objects.create(vmKind, machine({ name: 'a' }))
      const revision = await store.revision()
      expect(await objects.replace(vmKind, created)).toEqual(created)
      await objects.change(vmKind, a, object => ({
        ...object,
        spec: { ...object.spec, ttl: undefined },
      }))
      await objects.changeStatus(vmKind, a, status => status)
      expect(await store.revision()).toBe(revision)
      const status = () => ({ phase: 'Running' as const, address: undefined })
      await objects.changeStatus(vmKind, a, status)
      await objects.changeStatus(vmKind, a, status)
      expect(await store.revision()).toBe(revision + 1)
    })

    test('refuses what is stale, another object, immutable or invalid', async () => {
      const { objects } = await prepare()
      const first = await objects.create(vmKind, machine({ name: 'a' }))
      await objects.changeStatus(vmKind, a, () => running)
      await expect(objects.replace(vmKind, first)).rejects.toMatchObject({ code: 'conflict' })
      await expect(
        objects.replace(vmKind, machine({ name: 'a', uid: 'other' })),
      ).rejects.toMatchObject({ code: 'conflict' })
      await expect(
        objects.replace(vmKind, machine({ name: 'a' }, { image: 'debian' })),
      ).rejects.toMatchObject({ code: 'invalid', causes: [{ field: 'spec.image' }] })
      await expect(
        objects.change(vmKind, a, object => ({ ...object, spec: { ...object.spec, cpu: -1 } })),
      ).rejects.toMatchObject({ code: 'invalid' })
      await expect(objects.replace(vmKind, machine({ name: 'b' }))).rejects.toMatchObject({
        code: 'notFound',
      })
      expect(await objects.change(vmKind, { ...a, name: 'b' }, object => object)).toBeUndefined()
    })

    test('two writers of 100 changes each lose none', async () => {
      const { objects } = await prepare()
      await objects.create(vmKind, machine({ name: 'a', annotations: { count: '0' } }))
      const write = async () => {
        for (let index = 0; index < 100; index++) {
          await objects.change(vmKind, a, object => {
            const count = Number(object.metadata.annotations?.['count']) + 1
            return {
              ...object,
              metadata: { ...object.metadata, annotations: { count: `${count}` } },
            }
          })
        }
      }
      await Promise.all([write(), write()])
      expect((await objects.get(vmKind, a)).metadata.annotations).toEqual({ count: '200' })
    })

    test('a status for another uid goes nowhere', async () => {
      const { objects } = await prepare()
      await objects.create(vmKind, machine({ name: 'a' }))
      const change = objects.changeStatus(vmKind, a, () => running, { uid: 'other' })
      expect(await change).toBeUndefined()
      expect((await objects.get(vmKind, a)).status).toBeUndefined()
    })
  })

  describe('remove', () => {
    test('waits for the finalizers; the last one released takes the object', async () => {
      const { objects } = await prepare()
      const created = await objects.create(
        vmKind,
        machine({ name: 'a', finalizers: ['mine/hold'] }),
      )
      const removed = await objects.remove(vmKind, a, { gracePeriodSeconds: 60 })
      expect(removed.metadata).toMatchObject({
        deletionTimestamp: expect.any(String),
        deletionGracePeriodSeconds: 60,
        generation: 2,
      })
      const again = await objects.remove(vmKind, a, { gracePeriodSeconds: 90 })
      expect(again).toEqual(removed)
      const faster = await objects.remove(vmKind, a, { gracePeriodSeconds: 0 })
      expect(faster.metadata.deletionGracePeriodSeconds).toBe(0)
      const uid = created.metadata.uid ?? ''
      await objects.releaseFinalizer(vmKind, a, 'macfleet.dev/guest', 'other')
      await objects.releaseFinalizer(vmKind, a, 'macfleet.dev/guest', uid)
      await objects.releaseFinalizer(vmKind, a, 'macfleet.dev/guest', uid)
      expect((await objects.get(vmKind, a)).metadata.finalizers).toEqual(['mine/hold'])
      await expect(
        objects.change(vmKind, a, object => ({
          ...object,
          metadata: { ...object.metadata, finalizers: ['mine/hold', 'new/one'] },
        })),
      ).rejects.toMatchObject({ code: 'invalid' })
      await objects.change(vmKind, a, object => ({
        ...object,
        metadata: { ...object.metadata, finalizers: [] },
      }))
      expect(await objects.find(vmKind, a)).toBeUndefined()
      await objects.releaseFinalizer(vmKind, a, 'macfleet.dev/guest', uid)
      await expect(objects.remove(vmKind, a)).rejects.toMatchObject({ code: 'notFound' })
    })

    test("a user can't take away the kind's own finalizer", async () => {
      const { objects } = await prepare()
      await objects.create(vmKind, machine({ name: 'a' }))
      const replaced = await objects.replace(vmKind, machine({ name: 'a', finalizers: [] }))
      expect(replaced.metadata.finalizers).toEqual(['macfleet.dev/guest'])
    })

    test('compares uid and resourceVersion, and asks the guards', async () => {
      const guard: Guard = {
        kind: imageKind,
        remove: async image => {
          throw failure('forbidden', { detail: `${image.metadata.name} is in use` })
        },
      }
      const { objects } = await prepare([guard])
      await objects.create(vmKind, machine({ name: 'a' }))
      await expect(objects.remove(vmKind, a, { uid: 'other' })).rejects.toMatchObject({
        code: 'conflict',
      })
      await expect(objects.remove(vmKind, a, { resourceVersion: '1' })).rejects.toMatchObject({
        code: 'conflict',
      })
      const image: unknown = {
        apiVersion: 'macfleet.dev/v1',
        kind: 'Image',
        metadata: { name: 'i', namespace: 'default' },
        spec: {},
      }
      const { kind, ...created } = await objects.create(imageKind, image as never)
      expect({ kind, spec: created.spec }).toMatchObject({ kind: 'Image', spec: { pinned: false } })
      await expect(
        objects.remove(imageKind, { name: 'i', namespace: 'default' }),
      ).rejects.toMatchObject({ code: 'forbidden', message: 'i is in use' })
    })
  })

  describe('list and watch', () => {
    test('namespace a does not see what is in ab', async () => {
      const { objects } = await prepare()
      await objects.create(vmKind, machine({ name: 'x', namespace: 'a' }))
      await objects.create(vmKind, machine({ name: 'y', namespace: 'ab' }))
      const names = async (selection = {}) =>
        (await objects.list(vmKind, selection)).items.map(item => item.metadata.name)
      expect(await names({ namespace: 'a' })).toEqual(['x'])
      expect(await names({ namespace: 'ab' })).toEqual(['y'])
      expect(await names()).toEqual(['x', 'y'])
    })

    test('pages go through all, and name the revision of the first', async () => {
      const { objects } = await prepare()
      for (let index = 0; index < 7; index++) {
        await objects.create(
          vmKind,
          machine({ name: `m${index}`, labels: { odd: `${index % 2}` } }),
        )
      }
      const first = await objects.list(vmKind, { limit: 3 })
      await objects.create(vmKind, machine({ name: 'm9' }))
      const second = await objects.list(vmKind, { limit: 3, continue: first.continue ?? '' })
      expect(second.resourceVersion).toBe(first.resourceVersion)
      const third = await objects.list(vmKind, { limit: 3, continue: second.continue ?? '' })
      expect(third.continue).toBeUndefined()
      const names = [first, second, third].flatMap(page =>
        page.items.map(item => item.metadata.name),
      )
      expect(names).toEqual(['m0', 'm1', 'm2', 'm3', 'm4', 'm5', 'm6', 'm9'])
      const odd = await objects.list(vmKind, {
        limit: 2,
        matches: item => item.metadata.labels?.['odd'] === '1',
      })
      expect(odd.items.map(item => item.metadata.name)).toEqual(['m1', 'm3'])
      for (const token of ['x', 'W10', Buffer.from('[1,"/leases/x"]').toString('base64url')]) {
        await expect(objects.list(vmKind, { continue: token })).rejects.toMatchObject({
          code: 'badRequest',
        })
      }
    })

    test('a watch tells every change of its namespace, with what was there before', async () => {
      const { objects } = await prepare()
      const { resourceVersion } = await objects.list(vmKind)
      const aborting = new AbortController()
      const seen: string[] = []
      const watching = (async () => {
        for await (const change of objects.watch(vmKind, {
          namespace: 'a',
          afterResourceVersion: resourceVersion,
          signal: aborting.signal,
        })) {
          if (change.type === 'BOOKMARK') continue
          const phase = change.object.status?.phase
          seen.push(`${change.type} ${change.object.metadata.name} ${phase}`)
          if (change.type === 'MODIFIED') seen.push(`after ${change.previous.status?.phase}`)
          if (change.type === 'DELETED') break
        }
      })()
      const reference = { name: 'x', namespace: 'a' }
      await objects.create(vmKind, machine({ name: 'y', namespace: 'ab' }))
      const { metadata } = await objects.create(vmKind, machine(reference))
      await objects.changeStatus(vmKind, reference, () => running)
      await objects.releaseFinalizer(vmKind, reference, 'macfleet.dev/guest', metadata.uid ?? '')
      await objects.remove(vmKind, reference)
      await watching
      expect(seen).toEqual([
        'ADDED x undefined',
        'MODIFIED x Running',
        'after undefined',
        'MODIFIED x Running',
        'after Running',
        'DELETED x Running',
      ])
      aborting.abort()
    })
  })
})
