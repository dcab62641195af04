import { describe, expect, test } from 'vitest'
import { systemClock } from '../base/clock.ts'
import { defaultLimits } from '../base/limits.ts'
import { silentLog } from '../base/log.ts'
import { createManualClock } from '../base/manual-clock.ts'
import { systemRandom } from '../base/random.ts'
import { eventKind } from '../resources/event.ts'
import { namespaceKind } from '../resources/namespace.ts'
import { createEventRecorder } from './event-recorder.ts'
import { createObjects } from './objects.ts'
import { createMemoryStore } from './store/memory.ts'

const subject = (name: string, namespace = 'default') => ({
  apiVersion: 'macfleet.dev/v1',
  kind: 'VirtualMachine',
  metadata: { name, namespace, uid: '1', resourceVersion: '7' },
})

async function prepare(bounds: Partial<typeof defaultLimits> = {}) {
  const clock = createManualClock()
  const limits = { ...defaultLimits, ...bounds }
  const common = { random: systemRandom, limits, log: silentLog }
  const store = createMemoryStore({ ...common, clock: systemClock })
  const objects = createObjects({}, { ...common, clock, store })
  const metadata = { name: 'default' }
  await objects.create(namespaceKind, { apiVersion: 'v1', kind: 'Namespace', metadata })
  const recorder = createEventRecorder(
    { component: 'macfleetd', host: 'h', windowMs: 60_000 },
    { ...common, clock, objects },
  )
  const events = async () => {
    await recorder.flush()
    return (await objects.list(eventKind, { namespace: 'default' })).items
  }
  return { clock, store, recorder, events }
}

describe('event recorder', () => {
  test('writes what happened to whom', async () => {
    const { recorder, events } = await prepare()
    recorder.record(subject('a'), { type: 'Warning', reason: 'Failed', message: 'QEMU died' })
    const [event] = await events()
    expect(event).toMatchObject({
      involvedObject: { kind: 'VirtualMachine', namespace: 'default', name: 'a', uid: '1' },
      type: 'Warning',
      reason: 'Failed',
      message: 'QEMU died',
      count: 1,
      source: { component: 'macfleetd', host: 'h' },
    })
  })

  test('counts what is said again within the window, and writes it anew after it', async () => {
    const { clock, recorder, events } = await prepare()
    const said = { type: 'Normal', reason: 'Started', message: 'm' } as const
    recorder.record(subject('a'), said)
    recorder.record(subject('a'), said)
    expect((await events()).map(event => event.count)).toEqual([2])
    await clock.advance(30_000)
    recorder.record(subject('a'), said)
    recorder.record(subject('b'), said)
    const counted = await events()
    expect(counted.map(event => event.count).sort()).toEqual([1, 3])
    expect(counted.find(event => event.count === 3)?.lastTimestamp).not.toBe(
      counted.find(event => event.count === 3)?.firstTimestamp,
    )
    await clock.advance(60_001)
    recorder.record(subject('a'), said)
    expect(await events()).toHaveLength(3)
  })

  test('keeps so many per namespace; those that happened longest ago go', async () => {
    const { clock, recorder, events } = await prepare({ eventsPerNamespace: 5 })
    for (let index = 0; index < 9; index++) {
      recorder.record(subject('a'), { type: 'Normal', reason: 'Step', message: `step ${index}` })
      await recorder.flush()
      await clock.advance(1_000)
    }
    const messages = (await events()).map(event => event.message).sort()
    expect(messages).toEqual(['step 4', 'step 5', 'step 6', 'step 7', 'step 8'])
  })

  test('never fails its caller: long words, no namespace, full queue, closed store', async () => {
    const { store, recorder, events } = await prepare({ eventsWaiting: 3 })
    const long = { type: 'Normal', reason: 'R'.repeat(500), message: 'm'.repeat(9_000) } as const
    recorder.record(subject('n'.repeat(63)), long)
    recorder.record(subject('a', 'nowhere'), long)
    expect(await events()).toHaveLength(1)
    for (let index = 0; index < 9; index++) {
      recorder.record(subject(`m${index}`), { type: 'Normal', reason: 'R', message: 'm' })
    }
    expect(await events()).toHaveLength(4)
    await store.close()
    recorder.record(subject('a'), { type: 'Normal', reason: 'R', message: 'after' })
    await recorder.flush()
  })
})
