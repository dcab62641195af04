import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { createManualClock } from '../../base/manual-clock.ts'
import { createAllowList } from './allow-list.ts'
import { decodeHello, encodeHello, type Hello, refusalOf } from './hello.ts'
import { createRate } from './rate.ts'
import { readAnswer } from './requests.ts'

const own: Hello = { fleetId: 'one', era: 3, version: '0.1.0', protocol: 1, host: 'a' }

describe('hello', () => {
  test('is read as it was said, with fields of later versions left out', () => {
    expect(decodeHello(encodeHello(own))).toEqual(own)
    const later = Buffer.from(JSON.stringify({ ...own, protocol: 9, weather: 'fine' }))
    expect(decodeHello(later)).toEqual({ ...own, protocol: 9 })
  })

  test('is nothing when it is garbage, too long or incomplete', () => {
    fc.assert(fc.property(fc.uint8Array(), bytes => decodeHello(bytes) === undefined))
    fc.assert(
      fc.property(fc.json(), text => {
        expect(decodeHello(Buffer.from(text))).toBeUndefined()
      }),
    )
    for (const wrong of [
      { era: -1 },
      { era: 1.5 },
      { era: '1' },
      { host: 'x'.repeat(300) },
      { fleetId: null },
    ]) {
      expect(decodeHello(Buffer.from(JSON.stringify({ ...own, ...wrong })))).toBeUndefined()
    }
    expect(decodeHello(Buffer.from(JSON.stringify({ ...own, more: 'x'.repeat(1024) })))).toBe(
      undefined,
    )
  })

  test('of another fleet or a lower era is refused; of a higher it is not for us to refuse', () => {
    expect(refusalOf(own, { ...own, version: '9', protocol: 9 })).toBeUndefined()
    expect(refusalOf(own, { ...own, fleetId: 'two' })).toBe('OtherFleet')
    expect(refusalOf(own, { ...own, era: 2 })).toBe('LowerEra')
    expect(refusalOf(own, { ...own, era: 4 })).toBeUndefined()
  })
})

test('an answer that is garbage is an error of printable words', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 1 }), bytes => {
      if (bytes[0] === 0) return
      expect(() => readAnswer(bytes)).toThrow(/^[\x20-\x7e]*$/)
    }),
  )
})

test('a rate lets through what it is for, and what was saved up', async () => {
  const clock = createManualClock()
  const rate = createRate({ perSecond: 2, most: 4 }, clock)
  const taken = (): number => Array.from({ length: 20 }, () => rate.take(1)).filter(Boolean).length
  expect(taken()).toBe(4)
  await clock.advance(1_000)
  expect(taken()).toBe(2)
  await clock.advance(3_600_000)
  expect(taken()).toBe(4)
  expect(rate.take(5)).toBe(false)
})

test('of two members with one name or one peer id the first counts', () => {
  const address = { host: '192.0.2.1', gossipPort: 1 }
  const list = createAllowList()
  let changes = 0
  const end = list.onChange(() => changes++)
  list.set([
    { name: 'a', peerId: '1', address },
    { name: 'a', peerId: '2', address },
    { name: 'b', peerId: '1', address },
  ])
  expect(list.list().map(({ name, peerId }) => name + peerId)).toEqual(['a1'])
  expect([list.isMember('1'), list.isMember('2')]).toEqual([true, false])
  end()
  list.set([])
  expect(changes).toBe(1)
})
