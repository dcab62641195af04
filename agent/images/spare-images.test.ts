import { expect, onTestFinished, test } from 'vitest'
import { systemClock } from '../../base/clock.ts'
import { defaultLimits } from '../../base/limits.ts'
import { silentLog } from '../../base/log.ts'
import { systemRandom } from '../../base/random.ts'
import { createObjects } from '../../cluster/objects.ts'
import { createMemoryStore } from '../../cluster/store/memory.ts'
import { type Image, imageKind } from '../../resources/image.ts'
import { namespaceKind } from '../../resources/namespace.ts'
import { canBeSpared, createSpareImages } from './spare-images.ts'

const needs = { clock: systemClock, random: systemRandom, limits: defaultLimits, log: silentLog }
const digest = `sha256:${'1'.repeat(64)}`

function imageWith(spec: Partial<Image['spec']>, status: Partial<Image['status'] & object>): Image {
  return {
    ...{ apiVersion: 'macfleet.dev/v1', kind: 'Image', metadata: { name: 'a' } },
    spec: { arch: 'x86_64', machine: 'linux', firmware: 'bios', pinned: false, ...spec },
    status: { phase: 'Ready', digest, ...status },
  }
}

test('a host spares what can be had again, and what it was not told to hold', () => {
  const source = { registry: 'registry.example.test/a:1' }
  expect(canBeSpared(imageWith({ source }, { hosts: ['b'] }), 'b')).toBe(true)
  expect(canBeSpared(imageWith({ source: { library: 'a' } }, { hosts: ['b'] }), 'b')).toBe(true)
  expect(canBeSpared(imageWith({ source }, { hosts: ['b'], copyHosts: ['b'] }), 'b')).toBe(false)
  expect(canBeSpared(imageWith({ source, pinned: true }, { hosts: ['b'] }), 'b')).toBe(false)
  const url = { url: 'https://disks.example.test/a.raw' }
  expect(canBeSpared(imageWith({ source: url }, { hosts: ['b'] }), 'b')).toBe(false)
})

test('the last of an image without a source stays, and so does one of several', () => {
  expect(canBeSpared(imageWith({}, { hosts: ['b'] }), 'b')).toBe(false)
  const held = imageWith({}, { hosts: ['a', 'b', 'c'] })
  expect(['a', 'b', 'c'].map(host => canBeSpared(held, host))).toEqual([false, true, true])
  const placed = imageWith({}, { hosts: ['a', 'b'], copyHosts: ['b'] })
  expect(['a', 'b'].map(host => canBeSpared(placed, host))).toEqual([true, false])
})

test('what nobody has told of stays, and every image of that content counts', async () => {
  const store = createMemoryStore(needs)
  onTestFinished(() => store.close())
  const objects = createObjects({}, { ...needs, store })
  const metadata = { name: 'default' }
  await objects.create(namespaceKind, { apiVersion: 'v1', kind: 'Namespace', metadata })
  const spare = createSpareImages()
  expect(spare.keep({ digest })).toBe(true)
  onTestFinished(spare.follow({ hostName: 'b', onEvicted: () => {} }, { ...needs, objects }))
  const create = async (name: string, copyHosts: string[]) => {
    const source = { registry: 'registry.example.test/a:1' }
    const { spec } = imageWith({ source }, {})
    const named = { name, namespace: 'default' }
    const type = { apiVersion: 'macfleet.dev/v1', kind: 'Image' } as const
    const { status: _, ...image } = await objects.create(imageKind, {
      ...type,
      metadata: named,
      spec,
    })
    await objects.changeStatus(imageKind, image.metadata, () => ({
      ...{ phase: 'Ready' as const, digest, hosts: ['b'], copyHosts },
    }))
  }
  await create('one', [])
  await expect.poll(() => spare.keep({ digest })).toBe(false)
  await create('two', ['b'])
  await expect.poll(() => spare.keep({ digest })).toBe(true)
  await objects.changeStatus(imageKind, { name: 'two', namespace: 'default' }, status => {
    return status && { ...status, copyHosts: ['a'] }
  })
  await expect.poll(() => spare.keep({ digest })).toBe(false)
})
