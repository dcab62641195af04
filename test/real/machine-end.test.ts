import { mkdirSync } from 'node:fs'
import { expect, onTestFinished, test } from 'vitest'
import { collectExit } from '../../agent/machine/collect.ts'
import { followGuardian } from '../../agent/machine/guardian-follow.ts'
import { createMachineMetrics } from '../../agent/machine/metrics.ts'
import { ProcessBook } from '../../agent/machine/process-book.ts'
import { readRecords } from '../../agent/machine/record.ts'
import { systemClock } from '../../base/clock.ts'
import { defaultLimits } from '../../base/limits.ts'
import { silentLog } from '../../base/log.ts'
import { createMetrics } from '../../base/metrics.ts'
import { systemRandom } from '../../base/random.ts'
import { createEventRecorder } from '../../cluster/event-recorder.ts'
import { createObjects } from '../../cluster/objects.ts'
import { createMemoryStore } from '../../cluster/store/memory.ts'
import { connectTo, script, startGuardian, until } from '../support/guardian.ts'
import { testMachine, testRecord, testTracked, testUid } from '../support/machine.ts'

test('an end is judged once, though the daemon dies before it has said so', async () => {
  const guardian = startGuardian()
  const shared = { clock: systemClock, random: systemRandom, limits: defaultLimits, log: silentLog }
  const store = createMemoryStore(shared)
  const objects = createObjects({}, { ...shared, store })
  const init = { component: 'test', host: 'here', windowMs: 1000 }
  const events = createEventRecorder(init, { ...shared, objects })
  const registry = createMetrics()
  const metrics = createMachineMetrics(registry, () => [])

  const first = connectTo(guardian)
  await first.start(script(guardian, testUid, 'exit 0'))
  await until('it has ended', () => first.exits.length === 1)
  // A guest that powered itself off, of which QMP told before its QEMU was let go.
  const guestEnding = {
    reason: 'GuestPoweredOff',
    message: 'The guest powered itself off',
  } as const
  const tracked = testTracked(guardian.folder, testRecord({ intent: 'ended', guestEnding }))
  mkdirSync(tracked.folder.path, { recursive: true })

  const collect = async (client: ReturnType<typeof connectTo>) => {
    const processes = new ProcessBook()
    await processes.refresh(() => connectTo(guardian).list())
    const context = { ...shared, events, metrics, processes, guardian: client }
    await collectExit(tracked, testMachine(), context)
    return processes
  }
  first.close()
  await expect(collect(first)).rejects.toMatchObject({ code: 'guardianUnavailable' })
  // All that the next daemon knows is on disk.
  const roots = { dataRoot: `${guardian.folder}/guests`, runRoot: `${guardian.folder}/run` }
  tracked.record = (await readRecords(roots, silentLog))[0]
  const processes = await collect(connectTo(guardian))
  expect(tracked.record).toMatchObject({ lastExit: { reason: 'GuestPoweredOff' }, failures: 1 })
  expect(processes.all()).toEqual([])
  expect(await connectTo(guardian).list()).toEqual([])
  expect(await registry.metrics()).toContain('{reason="GuestPoweredOff"} 1')
  await events.flush()
  await store.close()
})

test('a guardian that is killed takes its processes along, and the book says so', async () => {
  const guardian = startGuardian()
  const client = connectTo(guardian)
  await client.start(script(guardian, testUid, 'exec sleep 1000'))
  const processes = new ProcessBook()
  const following = await followGuardian(
    { processes, onExit: () => {}, onListed: () => {} },
    { guardian: client, clock: systemClock, log: silentLog },
  )
  onTestFinished(() => following.stop())
  expect(processes.get(testUid)).not.toHaveProperty('ended')
  guardian.process.kill('SIGKILL')
  await until('the loss is seen', () => !following.isTrue())
  startGuardian(guardian.folder)
  await until('the next one was asked', () => following.isTrue())
  expect(processes.get(testUid)?.ended).toMatchObject({ reason: 'guardianLost' })
})
