import fc from 'fast-check'
import { expect, test } from 'vitest'
import { defaultTiming } from '../../cluster/fleet/timing.ts'
import { GuardianSilence } from './silence.ts'

const timing = defaultTiming
const { fenceMs, fenceCheckMs } = timing
const identity = { pid: 7, startTicks: 70 }

/** What a guardian answers that renewed at a time. */
const answerOf = (renewedMs: number, names = ['guest']) => {
  const deadlineMs = renewedMs + fenceMs
  return {
    lease: { leaseRevision: 1, renewedMs, deadlineMs, gone: false },
    fenced: names.map(name => ({ name, identity, deadlineMs })),
  }
}

test('a guardian that is frozen at any moment leaves no guest alive past its deadline', () => {
  const moment = fc.integer({ min: 0, max: 30_000 })
  fc.assert(
    fc.property(moment, moment, fc.nat(2_000), (cutMs, laterMs, offsetMs) => {
      // First nothing is renewed any more, then, before the guardian would kill, it is frozen.
      const lastMs = Math.floor(cutMs / 1000) * 1000
      const frozenMs = Math.min(cutMs + laterMs, lastMs + fenceMs - 1)
      const silence = new GuardianSilence()
      for (let nowMs = offsetMs; ; nowMs += silence.nextCheckMs(nowMs, timing)) {
        const dead = silence.check(nowMs, timing)
        const renewedMs = Math.min(lastMs, Math.floor(nowMs / 1000) * 1000)
        if (dead.length > 0) {
          expect(dead).toMatchObject([{ name: 'guest', identity }])
          if (nowMs > offsetMs + fenceMs) {
            expect(nowMs).toBeLessThanOrEqual(lastMs + fenceMs + 2 * fenceCheckMs)
          }
          return
        }
        if (silence.isAsking()) continue
        const question = silence.ask()
        // The first answer is always had: a daemon that never heard a guardian knows no guest.
        if (nowMs < frozenMs || nowMs === offsetMs) silence.answered(question, answerOf(renewedMs))
      }
    }),
    { numRuns: 500 },
  )
})

test('a daemon that was frozen itself asks before it kills', () => {
  const silence = new GuardianSilence()
  silence.answered(silence.ask(), answerOf(1_000))
  silence.check(2_000, timing)
  silence.nextCheckMs(2_000, timing)
  // Its answer came, and lies there.
  const question = silence.ask()
  expect(silence.check(60_000, timing)).toEqual([])
  silence.answered(question, answerOf(59_000))
  for (let nowMs = 60_000; nowMs < 59_000 + fenceMs; nowMs += fenceCheckMs) {
    expect(silence.check(nowMs, timing)).toEqual([])
  }
})

test('a guest that is started while an answer is on its way is not lost sight of', () => {
  const silence = new GuardianSilence()
  silence.answered(silence.ask(), answerOf(1_000, []))
  const question = silence.ask()
  silence.expect('new', 1_500)
  silence.answered(question, answerOf(2_000, []))
  expect(silence.guest('new')).toMatchObject({ deadlineMs: 1_000 + fenceMs })
  silence.started('new', identity)
  silence.answered(silence.ask(), answerOf(3_000, ['new']))
  expect(silence.guest('new')).toMatchObject({ identity, deadlineMs: 3_000 + fenceMs })
  silence.answered(silence.ask(), answerOf(4_000, []))
  expect(silence.guest('new')).toBeUndefined()
  silence.expect('again', 4_500)
  silence.forget('again')
  expect(silence.guest('again')).toBeUndefined()
})

test('a question without an answer is asked again, and counts as silence', () => {
  const silence = new GuardianSilence()
  silence.answered(silence.ask(), answerOf(0))
  for (let times = 0; times < 3; times++) {
    silence.ask()
    silence.failed()
    expect(silence.isAsking()).toBe(false)
    silence.check(0, timing)
  }
  expect(silence.check(fenceMs, timing)).toHaveLength(1)
})
