import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { digestOfBytes } from '../../test/support/lying-server.ts'
import { type ChunkLocation, decodeLocations, encodeLocations } from '../format/locations.ts'
import { planRanges } from './range-plan.ts'

const bounds = { rangeBytes: 1_000, gapBytes: 50 }
const packs = ['one', 'other'].map(name => ({ digest: digestOfBytes(name), sizeBytes: 100_000 }))
const place = fc.record({
  pack: fc.constantFrom(...packs),
  offsetBytes: fc.nat(5_000),
  lengthBytes: fc.integer({ min: 1, max: 900 }),
})

function locate(places: readonly ChunkLocation[]) {
  const limits = { imagePacks: 10, packBytes: 1_000_000 }
  return decodeLocations(encodeLocations(places), places.length, limits)
}

describe('ranges', () => {
  test('hold every chunk that is wanted once, within bounds, the first one first', () => {
    fc.assert(
      fc.property(fc.array(place, { minLength: 1, maxLength: 60 }), fc.nat(), (places, seed) => {
        const wanted = places.map((_, at) => at).filter(at => at === 0 || (seed >> (at % 30)) & 1)
        wanted.reverse()
        const ranges = planRanges(wanted, locate(places), bounds)
        const found = ranges.flatMap(({ chunks }) => chunks.map(({ number }) => number))
        expect(found.toSorted()).toEqual(wanted.toSorted())
        expect(ranges[0]?.chunks.some(({ number }) => number === wanted[0])).toBe(true)
        for (const range of ranges) {
          expect(range.lengthBytes).toBeLessThanOrEqual(bounds.rangeBytes)
          let [endBytes, most] = [range.offsetBytes, 0]
          for (const { location } of range.chunks) {
            expect(location.pack.digest).toBe(range.pack)
            expect(location.offsetBytes - endBytes).toBeLessThanOrEqual(bounds.gapBytes)
            endBytes = Math.max(endBytes, location.offsetBytes + location.lengthBytes)
            most = Math.max(most, endBytes)
          }
          expect(range.offsetBytes).toBe(range.chunks[0]?.location.offsetBytes)
          expect(range.lengthBytes).toBe(most - range.offsetBytes)
        }
      }),
    )
  })

  test('are one for neighbours, and two across a wide gap', () => {
    const [pack] = packs
    if (pack === undefined) throw new Error('no pack')
    const at = (offsetBytes: number) => ({ pack, offsetBytes, lengthBytes: 100 })
    const plan = (...offsets: number[]) =>
      planRanges(
        offsets.map((_, number) => number),
        locate(offsets.map(at)),
        bounds,
      ).map(({ offsetBytes, lengthBytes }) => [offsetBytes, lengthBytes])
    expect(plan(0, 100, 200)).toEqual([[0, 300]])
    expect(plan(0, 150)).toEqual([[0, 250]])
    expect(plan(0, 151)).toEqual([
      [0, 100],
      [151, 100],
    ])
    expect(plan(0, 0)).toEqual([[0, 100]])
  })
})
