import { afterEach, beforeEach, expect, test } from 'vitest'
import { systemClock } from '../base/clock.ts'
import { failure } from '../base/errors.ts'
import { defaultLimits } from '../base/limits.ts'
import { silentLog } from '../base/log.ts'
import { systemRandom } from '../base/random.ts'
import { eventKind } from '../resources/event.ts'
import { imageKind } from '../resources/image.ts'
import { namespaceKind } from '../resources/namespace.ts'
import { virtualMachineKind as vmKind } from '../resources/virtual-machine.ts'
import { namespaceGuard, startNamespaceController } from './namespace-controller.ts'
import { createObjects, type Guard, type Objects } from './objects.ts'
import { createMemoryStore } from './store/memory.ts'
import type { Store } from './store/store.ts'

let objects: Objects
let store: Store
beforeEach(async () => {
  const needs = { clock: systemClock, random: systemRandom, limits: defaultLimits, log: silentLog }
  store = createMemoryStore(needs)
  const inUse: Guard = {
    kind: imageKind,
    async remove() {
      const { items } = await objects.list(vmKind, { namespace: 'a' })
      if (items.length > 0) throw failure('forbidden', { detail: 'in use' })
      return []
    },
  }
  objects = createObjects({ guards: [inUse, namespaceGuard] }, { ...needs, store })
  for (const name of ['default', 'a', 'ab']) {
    await objects.create(namespaceKind, { apiVersion: 'v1', kind: 'Namespace', metadata: { name } })
  }
})
afterEach(() => store.close())

const group = { apiVersion: 'macfleet.dev/v1' }
const fill = async (namespace: string) => {
  const metadata = { name: 'x', namespace }
  const machine: unknown = { ...group, kind: vmKind.kind, metadata, spec: { image: 'x' } }
  const image: unknown = { ...group, kind: imageKind.kind, metadata, spec: {} }
  await objects.create(vmKind, machine as never)
  await objects.create(imageKind, image as never)
  const involvedObject = {}
  await objects.create(eventKind, { apiVersion: 'v1', kind: 'Event', metadata, involvedObject })
}

test('a namespace goes when all in it has gone, and takes nothing new meanwhile', async () => {
  await fill('a')
  await fill('ab')
  const controller = startNamespaceController({
    objects,
    clock: systemClock,
    log: silentLog,
  })
  await expect(objects.remove(namespaceKind, { name: 'default' })).rejects.toMatchObject({
    code: 'forbidden',
  })
  await objects.remove(namespaceKind, { name: 'a' })
  await expect(fill('a')).rejects.toMatchObject({ code: 'namespaceTerminating' })
  const x = { name: 'x', namespace: 'a' }
  await expect
    .poll(async () => (await objects.get(vmKind, x)).metadata.deletionTimestamp)
    .toBeTruthy()
  const namespace = await objects.get(namespaceKind, { name: 'a' })
  expect(namespace.status?.phase).toBe('Terminating')
  const { uid: machineUid = '' } = (await objects.get(vmKind, x)).metadata
  await objects.releaseFinalizer(vmKind, x, 'macfleet.dev/guest', machineUid)
  await expect
    .poll(async () => (await objects.find(imageKind, x))?.metadata.deletionTimestamp, {
      timeout: 5_000,
    })
    .toBeTruthy()
  const { uid: imageUid = '' } = (await objects.get(imageKind, x)).metadata
  await objects.releaseFinalizer(imageKind, x, 'macfleet.dev/content', imageUid)
  await expect
    .poll(() => objects.find(namespaceKind, { name: 'a' }), { timeout: 5_000 })
    .toBeUndefined()
  expect((await objects.list(vmKind)).items).toHaveLength(1)
  expect((await objects.list(eventKind, { namespace: 'a' })).items).toHaveLength(0)
  await controller.stop()
})
