import { expect, onTestFinished, test } from 'vitest'
import { failure } from '../../base/errors.ts'
import { defaultLimits } from '../../base/limits.ts'
import { silentLog } from '../../base/log.ts'
import { createManualClock } from '../../base/manual-clock.ts'
import { systemRandom } from '../../base/random.ts'
import { hostLeaseKey, hostLifeKey, placementKey } from '../fleet/keys.ts'
import { createMemoryStore } from '../store/memory.ts'
import type { Entry, Operation, Store } from '../store/store.ts'
import { createKnownEntries } from './known-entries.ts'
import { followFleet } from './view.ts'

const entry = (key: string, modRevision: number): Entry => ({
  key,
  value: modRevision,
  createRevision: 1,
  modRevision,
})

test('what is older than what is known never replaces it', () => {
  const known = createKnownEntries()
  expect(known.listed([entry('a', 2), entry('b', 3)], 5)).toEqual(['a', 'b'])
  // Our own write, and then the watch that is behind.
  expect(known.learned('a', entry('a', 9), 9)).toBe(true)
  expect(known.watched('a', entry('a', 7), 7)).toBe(false)
  expect(known.watched('a', undefined, 8)).toBe(false)
  expect(known.listed([entry('a', 7)], 8)).toEqual(['b'])
  expect(known.get('a')?.modRevision).toBe(9)
  // Our own deletion.
  expect(known.learned('a', undefined, 10)).toBe(true)
  expect(known.watched('a', entry('a', 9), 9)).toBe(false)
  expect(known.get('a')).toBeUndefined()
  expect(known.watched('a', undefined, 10)).toBe(false)
  expect(known.watched('a', entry('a', 11), 11)).toBe(true)
  expect([...known.all()].map(({ key }) => key)).toEqual(['a'])
})

test('tells what is new, and after a broken watch what was passed over', async () => {
  const clock = createManualClock()
  const components = { clock, random: systemRandom, limits: defaultLimits, log: silentLog }
  const memory = createMemoryStore(components)
  let breakWatch = () => {}
  let away = false
  const store: Store = {
    ...memory,
    async list(prefix, options) {
      if (away) throw failure('unavailable', { what: 'the store', detail: 'away', advice: '' })
      return memory.list(prefix, options)
    },
    async *watch(prefix, options) {
      const breaking = new AbortController()
      if (prefix === 'fleet/') breakWatch = () => breaking.abort()
      const signal = AbortSignal.any([options.signal, breaking.signal])
      yield* memory.watch(prefix, { ...options, signal })
    },
  }
  const write = (...operations: Operation[]) => memory.transaction({ compare: [], operations })
  const seen: string[] = []
  let gaps = 0
  await write({ put: placementKey('u'), value: { uid: 'u', host: 'h' } })
  const view = followFleet(
    { onNews: news => seen.push(Object.values(news).join(' ')), onGap: () => gaps++ },
    { store, clock, log: silentLog },
  )
  onTestFinished(async () => {
    await view.stop()
    await memory.close()
  })
  await clock.advance(0)
  expect(view.isReady()).toBe(true)
  expect(seen).toEqual(['fleet', 'lease h', 'host h', 'machine u'])
  expect(view.placedOn('h')).toEqual(['u'])
  seen.length = 0
  await write({ put: hostLeaseKey('h'), value: {} })
  await clock.advance(0)
  expect(seen.splice(0)).toEqual(['lease h'])
  await write({ delete: hostLeaseKey('h') })
  await clock.advance(0)
  expect(seen.splice(0)).toEqual(['lease h'])
  // While nobody looks, the lease has another life.
  away = true
  breakWatch()
  await clock.advance(600)
  await write({ put: hostLeaseKey('h'), value: {} }, { put: hostLifeKey('h'), value: {} })
  await write({ delete: hostLeaseKey('h') })
  away = false
  await clock.advance(1_000)
  expect(gaps).toBe(1)
  expect(seen).toEqual(['lease h'])
})
