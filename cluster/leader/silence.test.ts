import { expect, test } from 'vitest'
import { createManualClock } from '../../base/manual-clock.ts'
import { createSilences } from './silence.ts'

function bench() {
  const clock = createManualClock()
  const silences = createSilences({ timing: { graceMs: 100 }, fenced: true }, clock)
  return { clock, silences }
}

test('a host is lost when its lease was seen gone for the whole grace', async () => {
  const { clock, silences } = bench()
  silences.see('a', true, 5)
  await clock.advance(1_000)
  expect(silences.sight('a')).toEqual({ is: 'Lives' })
  silences.see('a', false, 5)
  expect(silences.sight('a')).toEqual({ is: 'Silent', leftMs: 100 })
  await clock.advance(60)
  silences.see('a', false, 5)
  expect(silences.sight('a')).toEqual({ is: 'Silent', leftMs: 40 })
  await clock.advance(40)
  expect(silences.sight('a')).toEqual({ is: 'Lost' })
  silences.see('a', true, 6)
  expect(silences.sight('a')).toEqual({ is: 'Lives' })
})

test('it is counted anew when the lease had another life meanwhile', async () => {
  const { clock, silences } = bench()
  silences.see('a', false, 5)
  await clock.advance(90)
  silences.see('a', false, 6)
  await clock.advance(90)
  expect(silences.sight('a').is).toBe('Silent')
})

test('after a gap only hosts whose lives are told apart are counted on', async () => {
  const { clock, silences } = bench()
  silences.see('old', false, 0)
  silences.see('new', false, 5)
  await clock.advance(90)
  silences.doubt()
  await clock.advance(20)
  expect(silences.sight('new').is).toBe('Lost')
  expect(silences.sight('old')).toEqual({ is: 'Silent', leftMs: 100 })
})
