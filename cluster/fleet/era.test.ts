import { expect, onTestFinished, test } from 'vitest'
import { systemClock } from '../../base/clock.ts'
import { defaultLimits } from '../../base/limits.ts'
import { silentLog } from '../../base/log.ts'
import { systemRandom } from '../../base/random.ts'
import { objectKey } from '../../resources/keys.ts'
import { virtualMachineKind } from '../../resources/virtual-machine.ts'
import { createMemoryStore } from '../store/memory.ts'
import type { Store } from '../store/store.ts'
import { isRemoved } from './era.ts'
import { fleetKey, placementKey } from './keys.ts'

const machine = { uid: 'u', namespace: 'default', name: 'vm' }
const objectAt = objectKey(virtualMachineKind, machine)

function openStore(): Store {
  const needs = { clock: systemClock, random: systemRandom, limits: defaultLimits, log: silentLog }
  const store = createMemoryStore(needs)
  onTestFinished(() => store.close())
  // What is remembered is from before there was anything.
  return { ...store, get: async () => ({ entry: undefined, revision: 1 }) }
}

const put = (store: Store, key: string, value: object) =>
  store.transaction({ compare: [], operations: [{ put: key, value: { ...value } }] })

test('a machine is removed when the store has neither it nor its placement', async () => {
  const store = openStore()
  await put(store, fleetKey, { era: 2 })
  expect(await isRemoved(machine, 2, store)).toBe(true)
  expect(await isRemoved(machine, 1, store)).toBe(false)
  await put(store, objectAt, { metadata: { name: 'vm', namespace: 'default', uid: 'another' } })
  expect(await isRemoved(machine, 2, store)).toBe(true)
})

test('a machine that only an old memory lacks is not removed', async () => {
  const store = openStore()
  await put(store, fleetKey, { era: 2 })
  await put(store, objectAt, { metadata: { name: 'vm', namespace: 'default', uid: 'u' } })
  expect(await isRemoved(machine, 2, store)).toBe(false)
})

test('nothing is removed that has a placement, or while a fleet recovers', async () => {
  const store = openStore()
  expect(await isRemoved(machine, 2, store)).toBe(false)
  await put(store, fleetKey, { era: 2, recoveringSince: 'now' })
  expect(await isRemoved(machine, 2, store)).toBe(false)
  await put(store, fleetKey, { era: 2 })
  await put(store, placementKey('u'), { uid: 'u' })
  expect(await isRemoved(machine, 2, store)).toBe(false)
})
