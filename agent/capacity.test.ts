import fc from 'fast-check'
import { expect, test } from 'vitest'
import { shortages } from '../cluster/scheduler/amounts.ts'
import { allocatableOf, createReservations } from './capacity.ts'

const GiB = 2 ** 30
const allocatable = { cpu: 8, memoryBytes: 15 * GiB, diskBytes: 100 * GiB, machines: 3 }
const request = (cpu: number, memoryGiB: number) => ({
  cpu,
  memoryBytes: memoryGiB * GiB,
  diskBytes: 0,
  machines: 1,
})
const nothing = { cpu: 0, memoryBytes: 0, diskBytes: 0, machines: 0 }

test('what guests may have leaves the reserve', () => {
  const capacity = { cpu: 2, memoryBytes: 16 * GiB, diskBytes: 100 * GiB, machines: 3 }
  const settings = { cpuOvercommit: 4, memoryReserve: '1Gi', diskReserve: '1Gi' }
  expect(allocatableOf(capacity, settings)).toMatchObject({ cpu: 8, memoryBytes: 15 * GiB })
})

test('says what is short', () => {
  expect(shortages(request(1, 1), nothing, allocatable)).toEqual([])
  expect(shortages(request(9, 16), nothing, allocatable)).toEqual([
    'wants 9 cores, 8 are free',
    'wants 16Gi of memory, 15Gi are free',
  ])
})

test('promises never exceed what there is', () => {
  const action = fc.record({
    uid: fc.constantFrom('a', 'b', 'c', 'd', 'e'),
    cpu: fc.integer({ min: 1, max: 9 }),
    release: fc.boolean(),
  })
  fc.assert(
    fc.property(fc.array(action, { maxLength: 40 }), actions => {
      const reservations = createReservations()
      for (const { uid, cpu, release } of actions) {
        if (release) reservations.release(uid)
        else reservations.reserve(uid, request(cpu, cpu), allocatable)
        const total = reservations.total()
        expect(total.cpu).toBeLessThanOrEqual(allocatable.cpu)
        expect(total.memoryBytes).toBeLessThanOrEqual(allocatable.memoryBytes)
        expect(total.machines).toBeLessThanOrEqual(allocatable.machines)
      }
    }),
  )
})

test('what is overcommitted already is not told as less than nothing', () => {
  expect(shortages(request(1, 1), request(20, 1), allocatable)).toEqual([
    'wants 1 cores, 0 are free',
  ])
})
