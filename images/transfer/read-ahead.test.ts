import { expect, test } from 'vitest'
import { allBits, emptyBits, forEachCommon, hasBit, putBit } from './bitmap.ts'
import { createMeter } from './meter.ts'
import { createReadAhead } from './read-ahead.ts'
import { createWindow } from './window.ts'

const MiB = 1024 * 1024

test('reads in a row are guessed further and further ahead, others not at all', () => {
  const ahead = createReadAhead()
  const KiB = 1024
  const read = (offset: number) => ahead.onRead(offset * KiB, 64 * KiB) / KiB
  expect(read(0)).toBe(0)
  expect(read(64)).toBe(512)
  // No further before it is seen that half of that is read.
  expect(read(128)).toBe(448)
  expect(read(192)).toBe(384)
  expect(read(256)).toBe(320)
  expect(read(500 * 1024)).toBe(0)
  expect(read(320)).toBe(1024)
  for (const at of [900, 700, 100, 300]) expect(ahead.onRead(at * MiB, 4096)).toBe(0)
  // Two readers at once are two rows, and a queue that changes the order is still one.
  expect(read(500 * 1024 + 64)).toBe(512)
  expect(read(448)).toBe(896)
  expect(read(384)).toBe(960)
  for (let at = 512; at < 40 * 1024; at += 64) read(at)
  expect(read(40 * 1024)).toBeGreaterThan(8 * 1024)
  expect(read(40 * 1024)).toBeLessThanOrEqual(16 * 1024)
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
