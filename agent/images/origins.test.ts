import { expect, test } from 'vitest'
import { systemClock } from '../../base/clock.ts'
import { defaultLimits } from '../../base/limits.ts'
import { silentLog } from '../../base/log.ts'
import { systemRandom } from '../../base/random.ts'
import type { Image } from '../../resources/image.ts'
import { createImageOrigins, type FoundImage } from './origins.ts'

const digest = `sha256:${'a'.repeat(64)}`
const image = {
  metadata: { name: 'a', namespace: 'default', uid: '1' },
  status: { phase: 'Ready', digest, resolved: 'registry.example.test/a@1' },
} as Image
const found = { digest, parts: {}, source: { kind: 'library', name: 'library a' } }
const needs = { clock: systemClock, random: systemRandom, log: silentLog, limits: defaultLimits }

test('hosts that hold an image can be asked while its registry does not answer', async () => {
  const host = {
    kind: 'peer',
    name: 'mac-2',
    identity: 'i',
    address: '127.0.0.1',
    port: 1,
  } as const
  let answer = (_: FoundImage): void => {}
  const origins = createImageOrigins({
    ...needs,
    peer: name => (name === 'mac-2' ? host : undefined),
    find: () =>
      new Promise(resolve => {
        answer = resolve
      }),
  })
  const held = { ...image, status: { ...image.status, hosts: ['mac-2'] } } as Image
  const { signal } = new AbortController()
  expect((await origins.of(held, signal)).sources).toEqual([host])
  answer(found as unknown as FoundImage)
  expect((await origins.of(held, signal)).sources).toEqual([host, found.source])
})

test('who leaves while a registry is asked leaves the others their answer', async () => {
  let asked = 0
  const origins = createImageOrigins({
    ...needs,
    peer: () => undefined,
    find: (_, signal) => {
      asked++
      if (asked > 1) return Promise.resolve(found as unknown as FoundImage)
      return new Promise((_resolve, reject) => {
        signal.addEventListener('abort', () => reject(signal.reason))
      })
    },
  })
  const leaving = new AbortController()
  const staying = new AbortController()
  const left = origins.of(image, leaving.signal)
  const beside = origins.of(image, staying.signal)
  leaving.abort(new Error('left'))
  await expect(left).rejects.toThrow('left')
  expect((await beside).sources).toEqual([found.source])
  expect((await origins.of(image, staying.signal)).sources).toEqual([found.source])
  expect(asked).toBe(2)
})
