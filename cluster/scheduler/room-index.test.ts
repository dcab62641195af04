import fc from 'fast-check'
import { expect, test } from 'vitest'
import { createRoomIndex } from './room-index.ts'

const GiB = 2 ** 30
const room = fc
  .record({
    tenths: fc.constantFrom(-10, 0, 9, 10, 19, 25, 700),
    gibibytes: fc.integer({ min: -1, max: 3 }),
  })
  .map(({ tenths, gibibytes }) => ({
    nanocores: tenths * 1e8,
    memoryBytes: gibibytes * GiB,
    machines: gibibytes,
    macosGuests: 0,
  }))

test('every host with the room is a candidate, once; full ones and those that left are not', () => {
  const change = fc.record({ slot: fc.nat(9), room: fc.option(room, { nil: undefined }) })
  const asked = fc
    .record({ cpu: fc.integer({ min: 1, max: 70 }), gibibytes: fc.integer({ min: 1, max: 3 }) })
    .map(({ cpu, gibibytes }) => ({ nanocores: cpu * 1e9, memoryBytes: gibibytes * GiB }))
  fc.assert(
    fc.property(fc.array(change, { maxLength: 40 }), asked, (changes, wants) => {
      const index = createRoomIndex()
      const rooms = new Map<number, (typeof changes)[number]['room']>()
      for (const { slot, room: next } of changes) {
        index.set(slot, next)
        rooms.set(slot, next)
      }
      const found = index.candidates({ ...wants, machines: 1, macosGuests: 0 }).flat()
      expect(new Set(found).size).toBe(found.length)
      for (const [slot, has] of rooms) {
        const fits =
          has !== undefined &&
          has.nanocores >= wants.nanocores &&
          has.memoryBytes >= wants.memoryBytes &&
          has.machines >= 1
        if (fits) expect(found).toContain(slot)
        if (has === undefined || has.machines < 1) expect(found).not.toContain(slot)
        if (has !== undefined && has.nanocores < 1e9) expect(found).not.toContain(slot)
      }
    }),
    { numRuns: 500 },
  )
})
