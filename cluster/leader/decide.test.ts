import { expect, test } from 'vitest'
import type { PlacementState } from '../fleet/placement.ts'
import { decide, type Situation } from './decide.ts'
import type { Sight } from './silence.ts'

const states: PlacementState[] = [
  'Assigned',
  'Claimed',
  'Refused',
  'Resting',
  'Waking',
  'Lost',
  'Gone',
]
const sights: Sight[] = [{ is: 'Lives' }, { is: 'Silent', leftMs: 7 }, { is: 'Lost' }]
const booleans = [true, false]

/** Every situation there is, but for the times in it. */
function* situations(): Generator<Situation> {
  for (const wanted of ['Run', 'Rest', 'Gone', 'None'] as const)
    for (const held of booleans)
      for (const isOver of booleans)
        for (const state of [...states, undefined])
          for (const diskEpoch of [1, undefined])
            for (const onHostLoss of ['Wait', 'Replace'] as const)
              for (const sight of sights)
                for (const recovering of booleans)
                  for (const claimLeftMs of [0, 5]) {
                    const disk = diskEpoch === undefined ? {} : { diskEpoch }
                    yield {
                      recovering,
                      machine: wanted === 'None' ? undefined : { wanted, held, isOver },
                      placement: state && { state, host: 'h', onHostLoss, ...disk },
                      sight,
                      claimLeftMs,
                      tombstoneLeftMs: 1,
                    }
                  }
}

test('whatever the situation, no guest that may run is taken away from its host', () => {
  let losses = 0
  for (const situation of situations()) {
    const { placement, sight, recovering, machine } = situation
    const { step } = decide(situation)
    const mayRun = placement?.diskEpoch !== undefined && placement.state !== 'Lost'
    if (step === 'lose') {
      losses++
      if (!mayRun) continue
      expect(sight.is).toBe('Lost')
      expect(placement.onHostLoss).toBe('Replace')
    }
    // A host cleans up after itself; only what was forgotten has no host that could.
    if (step === 'release' && mayRun) expect(placement.state).toBe('Gone')
    if (step === 'release') expect(machine).toMatchObject({ wanted: 'Gone', held: true })
    if (step === 'unrecord') expect(machine).toBeUndefined()
    if (recovering) expect(['rest', 'tell']).toContain(step)
  }
  expect(losses).toBeGreaterThan(0)
})

test('whatever the situation, what should run on a host that is lost does not wait in vain', () => {
  for (const situation of situations()) {
    const { placement, sight, recovering, machine } = situation
    if (machine?.wanted !== 'Run' || recovering || machine.isOver) continue
    if (placement?.state === 'Gone') continue
    const waits = placement?.diskEpoch !== undefined && placement.onHostLoss === 'Wait'
    if (sight.is === 'Lost' && !waits) expect(['place', 'lose']).toContain(decide(situation).step)
  }
})
