import fc from 'fast-check'
import { expect, test } from 'vitest'
import { defaultTiming, type Timing } from '../../cluster/fleet/timing.ts'
import { FenceDeadline } from './deadline.ts'

const timing = defaultTiming
const { hostLeaseTtlMs, graceMs, fenceMs, fenceCheckMs, killMs, renewalTimeoutMs } = timing

/** When etcd answers, in a run: outside of these spans it does not. */
type Outage = { fromMs: number; toMs: number }

interface Run {
  outages: Outage[]
  /** They are elections: leases do not end in them, and the new leader gives each its whole life. */
  elections?: boolean
  /** Endpoints that never answer, asked first. */
  deadEndpoints: number
  /** When the daemon was heard. */
  heardMs: number[]
  untilMs: number
}

interface Story {
  deadMs: number | undefined
  /** When the others may see the host's key gone at the earliest. */
  keyGoneMs: number
}

/** Lives through a run in steps of a check, as agent/guardian/fencing.ts does. */
function live(run: Run, spans: Timing = timing): Story {
  const deadline = new FenceDeadline()
  const isOut = (ms: number) => run.outages.some(({ fromMs, toMs }) => ms >= fromMs && ms < toMs)
  let keyGoneMs = spans.hostLeaseTtlMs
  let round: { freeMs: number } | undefined
  deadline.hold(1, spans, 0)
  deadline.renewed(1, 0)
  deadline.bind('guest')
  for (let nowMs = 0; nowMs <= run.untilMs; nowMs += spans.fenceCheckMs) {
    if (deadline.due(nowMs).length > 0) return { deadMs: nowMs + spans.killMs, keyGoneMs }
    for (const ms of run.heardMs) {
      if (ms <= nowMs && ms > nowMs - spans.fenceCheckMs) deadline.heard(nowMs)
    }
    if (round !== undefined && nowMs < round.freeMs) continue
    if (!deadline.renewalDue(nowMs)) continue
    deadline.tried(nowMs)
    let sentMs = nowMs + run.deadEndpoints * spans.renewalTimeoutMs
    for (let tries = run.deadEndpoints; tries < spans.endpointsMost && isOut(sentMs); tries++) {
      sentMs += spans.renewalTimeoutMs
    }
    round = { freeMs: sentMs }
    if (isOut(sentMs) || sentMs >= nowMs + spans.endpointsMost * spans.renewalTimeoutMs) continue
    if (run.elections === true) {
      for (const { toMs } of run.outages) {
        if (toMs <= sentMs) keyGoneMs = Math.max(keyGoneMs, toMs + spans.hostLeaseTtlMs)
      }
    }
    if (sentMs >= keyGoneMs) deadline.gone(1, sentMs)
    else {
      deadline.renewed(1, sentMs)
      keyGoneMs = sentMs + spans.hostLeaseTtlMs
    }
  }
  return { deadMs: undefined, keyGoneMs }
}

const anyOutages = fc.array(
  fc.record({ fromMs: fc.nat(60_000), forMs: fc.nat(15_000) }).map(({ fromMs, forMs }) => ({
    fromMs,
    toMs: fromMs + forMs,
  })),
  { maxLength: 8 },
)

test('whatever etcd, network and daemon do, a fenced guest dies before it is replaced', () => {
  const run = fc.record({
    outages: anyOutages,
    deadEndpoints: fc.nat(timing.endpointsMost),
    heardMs: fc.array(fc.nat(60_000), { maxLength: 20 }),
    untilMs: fc.constant(120_000),
  })
  fc.assert(
    fc.property(run, given => {
      const { deadMs, keyGoneMs } = live(given)
      // The daemon is silent at the end, so every run ends so.
      expect(deadMs).toBeDefined()
      const replacedMs = keyGoneMs + graceMs * (1 - timing.clockDrift)
      expect(deadMs).toBeLessThan(replacedMs)
    }),
    { numRuns: 300 },
  )
})

test('that can fail: with a deadline that is too long a guest runs twice', () => {
  const run = {
    outages: [{ fromMs: 500, toMs: 90_000 }],
    deadEndpoints: 0,
    heardMs: [],
    untilMs: 90_000,
  }
  const { deadMs = 0, keyGoneMs } = live(run, { ...timing, fenceMs: 9_000 })
  expect(deadMs).toBeGreaterThan(keyGoneMs + graceMs)
})

test('elections, with members of etcd dead, end nobody', () => {
  const elections = fc.array(
    fc.record({
      // Between two of them a renewal gets through.
      quietMs: fc.integer({ min: 3 * timing.renewalPeriodMs, max: 10_000 }),
      forMs: fc.nat(timing.electionMostMs),
    }),
    { minLength: 1, maxLength: 6 },
  )
  fc.assert(
    fc.property(elections, fc.nat(timing.endpointsMost - 1), (list, deadEndpoints) => {
      let atMs = 0
      const outages = list.map(({ quietMs, forMs }) => {
        const fromMs = atMs + quietMs
        atMs = fromMs + forMs
        return { fromMs, toMs: atMs }
      })
      const heardMs = Array.from({ length: 100 }, (_, second) => second * 1_000)
      const { deadMs } = live({
        ...{ outages, deadEndpoints, heardMs, untilMs: 80_000 },
        elections: true,
      })
      expect(deadMs).toBeUndefined()
    }),
    { numRuns: 300 },
  )
})

function held(): FenceDeadline {
  const deadline = new FenceDeadline()
  deadline.hold(1, timing, 0)
  deadline.renewed(1, 10)
  return deadline
}

test('nothing starts without a lease, before its first renewal, or shortly before its end', () => {
  const deadline = new FenceDeadline()
  expect(deadline.mayStart(1, 0)).toBe(false)
  deadline.hold(1, timing, 0)
  expect(deadline.mayStart(1, 0)).toBe(false)
  deadline.renewed(1, 10)
  expect(deadline.mayStart(1, 20)).toBe(true)
  expect(deadline.mayStart(2, 20)).toBe(false)
  expect(deadline.mayStart(1, 10 + fenceMs - killMs - fenceCheckMs - 1)).toBe(true)
  expect(deadline.mayStart(1, 10 + fenceMs - killMs - fenceCheckMs)).toBe(false)
  deadline.gone(1, 20)
  expect(deadline.mayStart(1, 20)).toBe(false)
})

test('a new lease saves no guest of the old one, a claim under it does', () => {
  const deadline = held()
  deadline.bind('claimed')
  deadline.bind('left')
  deadline.gone(1, hostLeaseTtlMs + 20)
  deadline.hold(2, timing, hostLeaseTtlMs + 30)
  deadline.renewed(2, hostLeaseTtlMs + 40)
  deadline.bind('claimed')
  expect(deadline.due(10 + fenceMs - 1)).toEqual([])
  expect(deadline.due(10 + fenceMs)).toEqual(['left'])
  deadline.release('left')
  expect(deadline.fenced()).toEqual(['claimed'])
  // An answer about the old lease that comes late changes nothing.
  deadline.renewed(1, hostLeaseTtlMs + 5_000)
  expect(deadline.deadlineOf('claimed')).toBe(hostLeaseTtlMs + 40 + fenceMs)
})

test('a lease that went before its time leaves what the grace of the others allows', () => {
  const deadline = held()
  deadline.bind('guest')
  deadline.gone(1, 1_100)
  const dieMs = deadline.deadlineOf('guest') ?? 0
  expect(dieMs + fenceCheckMs + killMs).toBeLessThanOrEqual(10 + graceMs)
  expect(dieMs).toBeGreaterThan(10 + timing.renewalPeriodMs + renewalTimeoutMs / 2)
})

test('the same lease told again goes on, with the spans it came with', () => {
  const deadline = held()
  deadline.bind('guest')
  deadline.hold(1, { ...timing, fenceMs: 60_000 }, 2_000)
  expect(deadline.deadlineOf('guest')).toBe(10 + fenceMs)
  expect(deadline.state()).toEqual({
    ...{ leaseRevision: 1, renewedMs: 10, deadlineMs: 10 + fenceMs, gone: false },
  })
})

test('renews for as long as the daemon is heard, or announced its silence', () => {
  const { daemonSilenceMs, plannedSilenceMostMs } = timing
  const deadline = held()
  expect(deadline.renewalDue(daemonSilenceMs - 1)).toBe(true)
  expect(deadline.renewalDue(daemonSilenceMs)).toBe(false)
  deadline.heard(30_000)
  deadline.tried(30_000)
  expect(deadline.renewalDue(30_000 + timing.renewalPeriodMs - 1)).toBe(false)
  expect(deadline.renewalDue(30_000 + timing.renewalPeriodMs)).toBe(true)
  deadline.expectSilence(10 * plannedSilenceMostMs, 30_000)
  expect(deadline.renewalDue(30_000 + plannedSilenceMostMs - 1)).toBe(true)
  expect(deadline.renewalDue(30_000 + plannedSilenceMostMs)).toBe(false)
  // The daemon that came back has no more patience than others.
  deadline.hold(1, timing, 40_000)
  expect(deadline.renewalDue(40_000 + daemonSilenceMs)).toBe(false)
  deadline.letGo()
  expect(deadline.renewalDue(40_001)).toBe(false)
})

/** A lease renewed last at 1,010 that went, and one granted and given to the guardian later. */
function followed(goneMs: number, grantedMs: number, givenMs = grantedMs): FenceDeadline {
  const deadline = held()
  deadline.bind('guest')
  deadline.renewed(1, 1_010)
  if (goneMs < grantedMs) deadline.gone(1, goneMs)
  deadline.hold(2, timing, givenMs, grantedMs)
  return deadline
}

test('a key that is back before anybody can have acted takes over the guests', () => {
  const early = followed(1_200, 1_300)
  expect(early.deadlineOf('guest')).toBe(1_300 + fenceMs)
  early.renewed(2, 2_000)
  expect(early.deadlineOf('guest')).toBe(2_000 + fenceMs)
  const unheard = followed(9_999, 1_300)
  expect(unheard.deadlineOf('guest')).toBe(1_300 + fenceMs)
  const cutOffMs = 1_010 + hostLeaseTtlMs
  expect(followed(cutOffMs, cutOffMs + 1_000).deadlineOf('guest')).toBe(cutOffMs + 1_000 + fenceMs)
})

test('a key that is back when somebody may have acted takes over nobody', () => {
  const late = followed(1_200, 1_300, 1_010 + graceMs)
  expect(late.due(1_010 + graceMs)).toEqual(['guest'])
  const cutOffMs = 1_010 + hostLeaseTtlMs
  expect(followed(cutOffMs, cutOffMs + graceMs).deadlineOf('guest')).toBe(1_010 + fenceMs)
  const found = held()
  found.bind('guest')
  found.hold(2, timing, 1_000)
  expect(found.deadlineOf('guest')).toBe(10 + fenceMs)
})
