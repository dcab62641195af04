import { expect, test } from 'vitest'
import { createManualClock } from '../../base/manual-clock.ts'
import { createSlots } from './slots.ts'
import { createThrottle } from './throttle.ts'

const signal = new AbortController().signal

test('bytes go at the rate, whatever their portions, after what was saved up', async () => {
  const clock = createManualClock()
  const throttle = createThrottle(1_000, clock)
  const gone: number[] = []
  const take = (bytes: number) =>
    throttle.take(bytes, signal).then(() => gone.push(clock.monotonicMs()))
  await take(250)
  for (const bytes of [100, 400, 500]) void take(bytes)
  await clock.advance(2_000)
  expect(gone).toEqual([0, 100, 500, 1_000])
  // No more is saved up than a quarter of a second.
  void take(1_250)
  await clock.advance(999)
  expect(gone).toHaveLength(4)
  await clock.advance(1)
  expect(gone).toHaveLength(5)
})

test('places are given in order, and none is lost by who gives up', async () => {
  const slots = createSlots(1)
  const first = await slots.take(signal)
  const leaving = new AbortController()
  const second = slots.take(leaving.signal)
  const third = slots.take(signal)
  leaving.abort(new Error('left'))
  await expect(second).rejects.toThrow('left')
  first()
  first()
  const release = await third
  const fourth = slots.take(signal)
  release()
  await fourth
})
