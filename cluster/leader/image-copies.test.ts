import { describe, expect, test } from 'vitest'
import { defaultLimits } from '../../base/limits.ts'
import { silentLog } from '../../base/log.ts'
import { createManualClock } from '../../base/manual-clock.ts'
import { createSeededRandom } from '../../base/random.ts'
import type { Host } from '../../resources/host.ts'
import { hostKind } from '../../resources/host.ts'
import { type Image, imageKind } from '../../resources/image.ts'
import { namespaceKind } from '../../resources/namespace.ts'
import { createObjects } from '../objects.ts'
import { createMemoryStore } from '../store/memory.ts'
import { chooseCopyHosts, keepImageCopies } from './image-copies.ts'

const nowMs = Date.parse('2026-01-01T00:10:00Z')

function host(
  name: string,
  more: { rack?: string; freeBytes?: number; lostAt?: string } = {},
): Host {
  const { rack = 'r1', freeBytes = 1000, lostAt } = more
  const amounts = { cpu: 1, memoryBytes: 1, diskBytes: freeBytes, machines: 1 }
  return {
    apiVersion: 'macfleet.dev/v1',
    kind: 'Host',
    metadata: { name, labels: { rack } },
    spec: { schedulable: true },
    status: {
      arch: 'x86_64',
      allocatable: amounts,
      conditions: [
        {
          type: 'Ready',
          status: lostAt === undefined ? 'True' : 'Unknown',
          reason: 'R',
          message: '',
          lastTransitionTime: lostAt ?? '2026-01-01T00:00:00Z',
        },
      ],
    },
  }
}

function image(spec: Partial<Image['spec']>, status: Partial<Image['status']> = {}): Image {
  return {
    apiVersion: 'macfleet.dev/v1',
    kind: 'Image',
    metadata: { name: 'base', namespace: 'default' },
    spec: { arch: 'x86_64', machine: 'linux', firmware: 'bios', pinned: false, ...spec },
    status: { phase: 'Ready', digest: `sha256:${'a'.repeat(64)}`, ...status },
  }
}

describe('hosts that are to hold copies', () => {
  const three = [host('a'), host('b', { freeBytes: 5000 }), host('c', { rack: 'r2' })]
  const choose = (one: Image, hosts: Host[] = three) => chooseCopyHosts(one, hosts, nowMs)

  test('nobody without a wish, or while nobody knows what it is', () => {
    expect(choose(image({}))).toEqual([])
    const unknown: Image = { ...image({ copies: { count: 1 } }), status: { phase: 'Importing' } }
    expect(choose(unknown)).toEqual([])
  })

  test('those with the most room, of those that match; all when no number is said', () => {
    expect(choose(image({ copies: { count: 1 } }))).toEqual(['b'])
    expect(choose(image({ copies: { hostSelector: { rack: 'r1' } } }))).toEqual(['a', 'b'])
    expect(choose(image({ copies: { hostSelector: { rack: 'r9' } } }))).toEqual([])
    expect(choose(image({ copies: { count: 0 } }))).toEqual([])
  })

  test('who was to hold it stays; then who holds it; then where it is on its way', () => {
    const copies = { count: 1 }
    expect(choose(image({ copies }, { copyHosts: ['a'], hosts: ['c'] }))).toEqual(['a'])
    expect(choose(image({ copies }, { hosts: ['c'] }))).toEqual(['c'])
    const filling = [{ host: 'a', doneBytes: 1, totalBytes: 2 }]
    expect(choose(image({ copies }, { filling }))).toEqual(['a'])
  })

  test('a lost host keeps its part for a while, and is replaced then', () => {
    const copies = { count: 1 }
    const held = image({ copies }, { copyHosts: ['a'] })
    const lost = (lostAt: string) => [host('a', { lostAt }), host('b')]
    expect(choose(held, lost('2026-01-01T00:09:00Z'))).toEqual(['a'])
    expect(choose(held, lost('2026-01-01T00:04:00Z'))).toEqual(['b'])
  })

  test('not one for another processor', () => {
    expect(choose(image({ copies: { count: 3 }, arch: 'aarch64' }))).toEqual([])
  })
})

test('the leader says who, follows changes, and takes it back', async () => {
  const clock = createManualClock(nowMs)
  const random = createSeededRandom(1)
  const store = createMemoryStore({ clock, random, log: silentLog, limits: defaultLimits })
  const objects = createObjects({}, { store, clock, random })
  const namespace = { apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'default' } } as const
  await objects.create(namespaceKind, namespace)
  const made = image({ copies: { count: 1 } })
  await objects.create(imageKind, made)
  await objects.changeStatus(imageKind, made.metadata, () => made.status)
  for (const each of [host('a'), host('b', { freeBytes: 5000 })]) {
    await objects.create(hostKind, each)
    await objects.changeStatus(hostKind, each.metadata, () => each.status)
  }
  const leading = new AbortController()
  const keeping = keepImageCopies(leading.signal, { objects, clock, log: silentLog })
  const copyHosts = async () =>
    (await objects.get(imageKind, made.metadata)).status?.copyHosts?.join()
  const until = async (wanted: string | undefined) => {
    for (let turn = 0; turn < 500 && (await copyHosts()) !== wanted; turn++) {
      await clock.advance(100)
    }
    expect(await copyHosts()).toBe(wanted)
  }
  await until('b')
  await objects.change(imageKind, made.metadata, current => ({
    ...current,
    spec: { ...current.spec, copies: {} },
  }))
  await until('a,b')
  await objects.change(imageKind, made.metadata, current => {
    const { copies: _, ...spec } = current.spec
    return { ...current, spec }
  })
  await until(undefined)
  leading.abort()
  await keeping
  await store.close()
})
