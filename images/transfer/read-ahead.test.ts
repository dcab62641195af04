import { expect, test } from 'vitest'
import { allBits, emptyBits, forEachCommon, hasBit, putBit } from './bitmap.ts'
import { createMeter } from './meter.ts'
import { createReadAhead } from './read-ahead.ts'
import { createWindow } from './window.ts'

const MiB = 1024 * 1024

test('reads in a row are guessed further and further ahead, others not at all', () => {
  const ahead = createReadAhead()
  expect(ahead.onRead(0, 65536)).toBe(0)
  expect(ahead.onRead(65536, 65536)).toBe(1 * MiB)
  expect(ahead.onRead(500 * MiB, 65536)).toBe(0)
  expect(ahead.onRead(131072, 65536)).toBe(2 * MiB)
  for (const at of [900, 700, 100, 300]) expect(ahead.onRead(at * MiB, 4096)).toBe(0)
  // Two readers at once are two rows, and a queue that changes the order is still one.
  expect(ahead.onRead(500 * MiB + 65536, 65536)).toBe(1 * MiB)
  expect(ahead.onRead(131072 + 3 * 65536, 65536)).toBe(4 * MiB)
  expect(ahead.onRead(131072 + 2 * 65536, 65536)).toBe(8 * MiB)
  for (let at = 4; at < 20; at++) ahead.onRead(131072 + at * 65536, 65536)
  expect(ahead.onRead(131072 + 20 * 65536, 65536)).toBe(16 * MiB)
})

test('a reader that has not read for long is forgotten', () => {
  const ahead = createReadAhead()
  ahead.onRead(0, 4096)
  for (let at = 1; at <= 16; at++) ahead.onRead(at * 100 * MiB, 4096)
  expect(ahead.onRead(4096, 4096)).toBe(0)
})

test('a window grows while answers come soon, and shrinks while they come late', () => {
  const window = createWindow(32 * MiB)
  for (let at = 0; at < 20; at++) window.took(10, 400)
  expect(window.bytes()).toBe(32 * MiB)
  expect(window.expectedMs()).toBeLessThan(20)
  for (let at = 0; at < 20; at++) window.took(4_000, 400)
  expect(window.bytes()).toBe(1 * MiB)
  expect(window.expectedMs()).toBeGreaterThan(3_000)
  window.took(10, 400)
  window.reset()
  expect(window.bytes()).toBe(1 * MiB)
})

test('a meter tells what came in the last three seconds', () => {
  const meter = createMeter()
  expect(meter.perSecond(100)).toBe(0)
  for (let at = 0; at < 40; at++) meter.add(100, 1_000 + at * 100)
  expect(meter.perSecond(5_000)).toBeGreaterThan(850)
  expect(meter.perSecond(5_000)).toBeLessThan(1_100)
  expect(meter.perSecond(100_000)).toBe(0)
})

test('bitmaps', () => {
  const bits = emptyBits(20)
  for (const number of [0, 9, 19]) putBit(bits, number, true)
  putBit(bits, 0, false)
  expect([0, 9, 19, 20, 400].map(number => hasBit(bits, number))).toEqual([
    ...[false, true, true, false, false],
  ])
  const seen: number[] = []
  const all = allBits(20)
  forEachCommon(bits, all, 2, number => seen.push(number) > 0)
  expect(seen).toEqual([19, 9])
  expect(hasBit(all, 20)).toBe(false)
})
