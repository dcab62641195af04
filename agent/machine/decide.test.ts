import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { decide, type Situation, type Step } from './decide.ts'

const idle: Situation = {
  standing: 'ours',
  draining: false,
  claimIsOld: false,
  wanted: 'Running',
  restartPolicy: 'OnFailure',
  mayCutPower: true,
  process: 'none',
  guest: 'unknown',
  diskHasRoom: true,
  imageStalled: false,
  stopping: false,
  intent: undefined,
  startBegun: false,
  blockedWaitMs: 0,
  lastExit: undefined,
  startAsked: false,
  restartAsked: false,
  waitMs: 0,
}
const running: Situation = { ...idle, process: 'running', guest: 'running' }
const blocked = { guest: 'blocked', blockedWaitMs: 5 } as const
const exit = (reason: NonNullable<Situation['lastExit']>['reason'], intended = false) => ({
  lastExit: { reason, intended },
})

describe('decide', () => {
  test.each<[string, Situation, Step['kind']]>([
    ['starts what never ran', idle, 'start'],
    ['leaves a stopped machine stopped', { ...idle, wanted: 'Stopped' }, 'rest'],
    ['does not start a machine only to suspend it', { ...idle, wanted: 'Suspended' }, 'rest'],
    ['leaves a running guest alone', running, 'rest'],
    [
      'collects an exit before anything else',
      { ...idle, wanted: 'Gone', process: 'ended' },
      'collect',
    ],
    ['lets QEMU go when its guest has ended', { ...running, guest: 'ended' }, 'quit'],
    ['shuts down', { ...running, wanted: 'Stopped' }, 'shutDown'],
    ['shuts down once', { ...running, wanted: 'Stopped', stopping: true }, 'rest'],
    ['shuts down for a restart', { ...running, restartAsked: true }, 'shutDown'],
    ['pauses', { ...running, wanted: 'Suspended' }, 'pause'],
    ['goes on when the disk has room', { ...running, guest: 'blocked' }, 'resume'],
    ['waits for room', { ...running, guest: 'blocked', diskHasRoom: false }, 'wait'],
    ['waits for its image', { ...running, guest: 'blocked', imageStalled: true }, 'wait'],
    ['does not resume a failing disk on and on', { ...running, ...blocked }, 'wait'],
    ['sees a shutdown through that was begun', { ...running, intent: 'stop' }, 'shutDown'],
    ['has heard of a start when it runs', { ...running, startAsked: true }, 'acknowledge'],
    [
      'owes a start that was begun',
      { ...idle, ...exit('GuestPoweredOff'), startBegun: true },
      'start',
    ],
    ['resumes', { ...running, guest: 'paused' }, 'resume'],
    ['cuts power for a deletion', { ...running, wanted: 'Gone', stopping: true }, 'quit'],
    ['deletes gently when asked', { ...running, wanted: 'Gone', mayCutPower: false }, 'shutDown'],
    ['removes what is gone', { ...idle, wanted: 'Gone' }, 'destroy'],
    ['waits out the back-off', { ...idle, ...exit('QemuDied'), waitMs: 5 }, 'wait'],
    ['starts again what we stopped', { ...idle, ...exit('GuestPoweredOff', true) }, 'start'],
    ['lets a guest power itself off', { ...idle, ...exit('GuestPoweredOff') }, 'rest'],
    ['starts it when asked', { ...idle, ...exit('GuestPoweredOff'), startAsked: true }, 'start'],
    [
      'starts it by policy',
      { ...idle, ...exit('GuestPoweredOff'), restartPolicy: 'Always' },
      'start',
    ],
    ['starts a panicked guest', { ...idle, ...exit('GuestPanicked') }, 'start'],
    ['starts after the guardian was lost', { ...idle, ...exit('GuardianLost') }, 'start'],
    ['asks for room when it had rested', { ...idle, standing: 'resting' }, 'askForRoom'],
    ['asks again: nothing is lost by it', { ...idle, standing: 'waking' }, 'askForRoom'],
    ['starts nothing of which it knows nothing', { ...idle, standing: 'unknown' }, 'wait'],
    [
      'removes nothing of which it knows nothing',
      { ...idle, standing: 'unknown', wanted: 'Gone' },
      'wait',
    ],
    ['obeys its user whoever has the machine', { ...running, standing: 'unknown' }, 'rest'],
    ['empties a host that is drained', { ...running, draining: true }, 'shutDown'],
    ['claims anew what it runs', { ...running, claimIsOld: true }, 'claimAnew'],
    [
      'claims nothing for what is to stop',
      { ...running, claimIsOld: true, wanted: 'Stopped' },
      'shutDown',
    ],
    ['gives up what may run elsewhere', { ...idle, draining: true }, 'surrender'],
    [
      'gives up nothing that rests',
      { ...idle, draining: true, wanted: 'Stopped', standing: 'resting' },
      'rest',
    ],
    ['obeys Never', { ...idle, ...exit('GuardianLost'), restartPolicy: 'Never' }, 'rest'],
  ])('%s', (_, situation, kind) => {
    expect(decide(situation).kind).toBe(kind)
  })

  test('reaches what is wanted from anywhere, and then rests', () => {
    const anywhere: fc.Arbitrary<Situation> = fc.record({
      standing: fc.constantFrom('ours', 'resting', 'waking', 'unknown'),
      draining: fc.boolean(),
      claimIsOld: fc.boolean(),
      wanted: fc.constantFrom('Running', 'Stopped', 'Suspended', 'Gone'),
      restartPolicy: fc.constantFrom('Never', 'OnFailure', 'Always'),
      mayCutPower: fc.boolean(),
      process: fc.constantFrom('none', 'running', 'ended'),
      guest: fc.constantFrom('unknown', 'running', 'paused', 'blocked', 'ended'),
      diskHasRoom: fc.boolean(),
      imageStalled: fc.boolean(),
      stopping: fc.boolean(),
      intent: fc.constantFrom('stop', 'restart', 'delete', 'drain', 'ended', undefined),
      startBegun: fc.boolean(),
      blockedWaitMs: fc.constantFrom(0, 100),
      lastExit: fc.option(
        fc.record({
          reason: fc.constantFrom(
            'GuestPoweredOff',
            'GuestPanicked',
            'QemuDied',
            'Killed',
            'GuardianLost',
            'Fenced',
          ),
          intended: fc.boolean(),
        }),
        { nil: undefined },
      ),
      startAsked: fc.boolean(),
      restartAsked: fc.boolean(),
      waitMs: fc.constantFrom(0, 100),
    })
    fc.assert(
      fc.property(anywhere, start => {
        let situation = start
        let destroyed = false
        for (let count = 0; count < 12; count++) {
          const step = decide(situation)
          if (step.kind === 'destroy') destroyed = true
          if (
            destroyed ||
            step.kind === 'surrender' ||
            (step.kind === 'rest' && !situation.stopping)
          )
            break
          situation = carryOut(situation, step)
        }
        expect(destroyed).toBe(start.wanted === 'Gone')
        if (start.wanted === 'Stopped') expect(situation.process).toBe('none')
        if (start.draining) return
        if (situation.process === 'running' && situation.guest !== 'unknown') {
          expect(situation.guest).toBe(start.wanted === 'Suspended' ? 'paused' : 'running')
        }
      }),
    )
  })
})

/** What the world looks like after a step, and what a guest does when it was asked to shut down. */
function carryOut(situation: Situation, step: Step): Situation {
  const asked = { startAsked: false, restartAsked: false }
  switch (step.kind) {
    case 'rest':
      return { ...situation, stopping: false, guest: 'ended' }
    case 'wait':
      return {
        ...situation,
        ...(situation.standing === 'unknown' && { standing: 'resting' }),
        waitMs: 0,
        blockedWaitMs: 0,
        diskHasRoom: true,
        imageStalled: false,
      }
    case 'askForRoom':
      return { ...situation, standing: 'ours' }
    case 'surrender':
      return situation
    case 'claimAnew':
      return { ...situation, claimIsOld: false }
    case 'start':
      return { ...situation, ...asked, startBegun: true, process: 'running', guest: 'running' }
    case 'shutDown':
      return { ...situation, stopping: true, intent: step.intent }
    case 'quit':
      return { ...situation, stopping: false, process: 'ended', guest: 'unknown' }
    case 'acknowledge':
      return { ...situation, startAsked: false }
    case 'pause':
      return { ...situation, guest: 'paused' }
    case 'resume':
      return { ...situation, guest: 'running' }
    case 'collect':
      return {
        ...situation,
        process: 'none',
        intent: undefined,
        startBegun: false,
        lastExit: { reason: 'Killed', intended: true },
      }
    case 'destroy':
      return situation
  }
}
