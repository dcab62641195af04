import { expect, onTestFinished, test } from 'vitest'
import { systemClock } from '../base/clock.ts'
import { defaultLimits } from '../base/limits.ts'
import { silentLog } from '../base/log.ts'
import { systemRandom } from '../base/random.ts'
import { namespaceKind } from '../resources/namespace.ts'
import { createFaultyStore } from '../test/support/faulty-store.ts'
import { createObjects } from './objects.ts'
import { createMemoryStore } from './store/memory.ts'
import { createMirroredStore } from './store/mirrored.ts'

const needs = { clock: systemClock, random: systemRandom, limits: defaultLimits, log: silentLog }
const namespace = (name: string) =>
  ({ apiVersion: 'v1', kind: 'Namespace', metadata: { name } }) as const

test('while the store is away reads are old, and no write is answered by what is old', async () => {
  const freshStore = createFaultyStore(createMemoryStore(needs), needs)
  const store = createMirroredStore(freshStore, needs)
  onTestFinished(() => store.close())
  const objects = createObjects({ freshStore }, { ...needs, store })
  await objects.create(namespaceKind, namespace('old'))
  await expect.poll(() => store.mirrorRevision()).toBeGreaterThan(1)
  freshStore.setAvailable(false)
  expect((await objects.list(namespaceKind)).items).toHaveLength(1)
  const away = { code: 'unavailable' }
  for (const name of ['old', 'made-elsewhere-since']) {
    await expect(objects.remove(namespaceKind, { name })).rejects.toMatchObject(away)
    await expect(objects.change(namespaceKind, { name }, it => it)).rejects.toMatchObject(away)
    await expect(objects.replace(namespaceKind, namespace(name))).rejects.toMatchObject(away)
  }
  await expect(objects.create(namespaceKind, namespace('old'))).rejects.toMatchObject(away)
})
