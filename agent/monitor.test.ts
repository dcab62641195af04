import { expect, test } from 'vitest'
import { busyFraction, parseProcessorTime } from './monitor.ts'

const stat = (line: string) => `${line}\ncpu0 1 2 3 4 5 6 7 8 9 10\nintr 5\n`

test('the time of all processors is the sum of eight columns, idle and iowait not busy', () => {
  // guest and guest_nice (1000) are part of user and nice.
  const text = stat('cpu  100 20 30 800 50 4 5 6 1000 1000')
  expect(parseProcessorTime(text)).toEqual({ busyTicks: 165, totalTicks: 1015 })
})

test('the busy share is that of the time between two readings', () => {
  const before = { busyTicks: 100, totalTicks: 1000 }
  expect(busyFraction(before, { busyTicks: 150, totalTicks: 1200 })).toBe(0.25)
  expect(busyFraction(before, before)).toBe(0)
  expect(busyFraction(before, { busyTicks: 90, totalTicks: 1200 })).toBe(0)
  expect(busyFraction(before, { busyTicks: 400, totalTicks: 1200 })).toBe(1)
})
