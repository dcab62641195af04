import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { failure } from '../../base/errors.ts'
import { silentLog } from '../../base/log.ts'
import { createManualClock, type ManualClock } from '../../base/manual-clock.ts'
import type { FillProgress } from '../../images/transfer/transfers.ts'
import type { GuestAction } from '../../kvm/actions.ts'
import { testRecord, testTracked } from '../../test/support/machine.ts'
import { temporaryFolder } from '../../test/support/temporary-folder.ts'
import type { ImageSupply, ProvidedImage } from '../images/image-supply.ts'
import { dropFetch, fetchImage } from './image-fetch.ts'
import { closeArrival, openArrival, resumeArrival } from './open-arrival.ts'

const digest = `sha256:${'a'.repeat(64)}`
const image = { namespace: 'default', name: 'micro', digest }

/** An image that the test lets arrive, stall or vanish, and a guest that waits for it. */
function world() {
  const folder = temporaryFolder()
  const clock: ManualClock = createManualClock()
  const progress: FillProgress = {
    ...{ doneBytes: 0, totalBytes: 100, bytesPerSecond: 1 },
    from: { peer: 0, registry: 0, library: 0, local: 0 },
  }
  const seen = {
    serving: [] as string[],
    closed: 0,
    actions: [] as string[],
    events: [] as string[],
    changes: 0,
    provided: 0,
  }
  const state = { whole: false, connected: true, busy: false, gone: false }
  const makeFilling = (done: Promise<void> = new Promise(() => {})) => ({
    digest,
    progress: () => progress,
    onProgress: () => () => {},
    onStored: () => () => {},
    setSources() {},
    setWant() {},
    async serve(path: string) {
      seen.serving.push(path)
      return {
        path,
        async close() {
          seen.closed += 1
        },
      }
    },
    done,
    async stop() {},
  })
  const provided: ProvidedImage & { disk: string } = {
    record: { digest } as ProvidedImage['record'],
    disk: join(folder, 'disk.raw'),
    filling: makeFilling(),
  }
  const supply: ImageSupply = {
    find: () => (state.gone ? undefined : provided),
    async provide() {
      seen.provided += 1
      if (state.gone) throw failure('imageContentMissing', { name: 'micro', digest })
      return provided
    },
  }
  const tracked = testTracked(
    folder,
    testRecord({ imageDigest: digest, lazyImage: { name: 'micro' } }),
  )
  mkdirSync(tracked.folder.path, { recursive: true })
  writeFileSync(provided.disk, 'the image', { mode: 0o444 })
  const guest = {
    status: () => ({ connected: state.connected }),
    async perform({ kind }: GuestAction) {
      seen.actions.push(kind)
      if (state.busy) throw failure('guestBusy', { job: 'mirror' })
    },
  }
  tracked.runtime = { guest } as unknown as NonNullable<typeof tracked.runtime>
  const context = {
    clock,
    log: silentLog,
    events: {
      record: (_: unknown, { reason }: { reason: string }) => void seen.events.push(reason),
    },
    images: {
      get: () => (state.whole ? provided.record : undefined),
      diskPath: () => provided.disk,
    },
    supply,
    host: { name: 'mac-1' },
    wake: () => {
      seen.changes += 1
    },
  } as unknown as Parameters<typeof openArrival>[1] & Parameters<typeof fetchImage>[2]
  const onChange = () => {
    seen.changes += 1
  }
  onTestFinished(async () => {
    const closing = closeArrival(tracked)
    await clock.advance(0)
    await closing
  })
  /** Time passes, and what it sets off is done: files are written too. */
  const pass = async (byMs: number, isDone: () => boolean = () => true) => {
    await clock.advance(byMs)
    do await new Promise(setImmediate)
    while (!isDone())
  }
  return { clock, progress, seen, state, provided, tracked, context, onChange, makeFilling, pass }
}

test('a guest reads the export until the image is whole, then the file', async () => {
  const { clock, progress, seen, state, tracked, context, onChange, pass } = world()
  tracked.arrival = openArrival({ tracked, image, onChange }, context)
  expect(await tracked.arrival.exported()).toBe('exported')
  expect(seen.serving).toEqual([tracked.folder.image])
  progress.doneBytes = 47
  await pass(1000)
  expect(tracked.arrival.view()).toEqual({ percent: 45, stalled: undefined })
  state.whole = true
  state.connected = false
  await pass(1000)
  expect(seen.actions).toEqual([])
  state.connected = true
  state.busy = true
  await pass(1000, () => seen.actions.length === 1 && clock.pendingTimers() > 0)
  expect(tracked.record?.lazyImage).toEqual({ name: 'micro' })
  expect(seen.closed).toBe(0)
  state.busy = false
  await pass(1000, () => seen.closed === 1)
  expect(seen.actions).toEqual(['useImageFile', 'useImageFile'])
  expect(readFileSync(tracked.folder.base, 'utf8')).toBe('the image')
  expect(readFileSync(tracked.folder.record, 'utf8')).not.toContain('lazyImage')
  expect(tracked.arrival).toBeUndefined()
  expect(seen).toMatchObject({ closed: 1, events: ['ImageLocal'] })
})

test('a daemon that comes back takes up the export, and tells when nothing comes', async () => {
  const { progress, seen, state, provided, tracked, context, onChange, makeFilling, pass } = world()
  state.gone = true
  resumeArrival({ tracked, onChange }, context)
  await pass(0)
  expect(tracked.arrival?.view().stalled).toContain('micro')
  expect(seen.events).toEqual(['ImageStalled'])
  state.gone = false
  await pass(5000)
  expect(seen.serving).toHaveLength(1)
  expect(tracked.arrival?.view()).toEqual({ percent: 0, stalled: undefined })
  progress.stalled = 'no source answers'
  await pass(1000)
  await pass(1000)
  expect(tracked.arrival?.view().stalled).toBe('no source answers')
  expect(seen.events).toEqual(['ImageStalled', 'ImageStalled'])
  delete progress.stalled
  provided.filling = makeFilling()
  await pass(1000)
  expect(seen, 'another filling, another export').toMatchObject({ closed: 1 })
  expect(seen.serving).toHaveLength(2)
  await closeArrival(tracked)
  expect(seen.closed).toBe(2)
})

test('an image that was given up is begun anew, and the reason is told', async () => {
  const { seen, provided, tracked, context, onChange, makeFilling, pass } = world()
  const first = Promise.withResolvers<void>()
  provided.filling = makeFilling(first.promise)
  resumeArrival({ tracked, onChange }, context)
  await pass(0)
  expect(seen.serving).toHaveLength(1)
  provided.filling = makeFilling()
  first.reject(new Error('the disk is full'))
  await pass(1000)
  expect(tracked.arrival?.view().stalled).toBe('the disk is full')
  await pass(5000)
  expect(seen.serving).toHaveLength(2)
  expect(tracked.arrival?.view().stalled).toBeUndefined()
})

test('a guest that has the file is not looked after', () => {
  const { tracked, context, onChange } = world()
  tracked.record = testRecord({ imageDigest: digest })
  resumeArrival({ tracked, onChange }, context)
  expect(tracked.arrival).toBeUndefined()
})

test('an image that became whole while a start was prepared needs no export', async () => {
  const { state, seen, tracked, context, onChange } = world()
  state.whole = true
  state.connected = false
  tracked.arrival = openArrival({ tracked, image, onChange }, context)
  expect(await tracked.arrival.exported()).toBe('whole')
  expect(seen.serving).toEqual([])
})

test('a start asks for its image once, beside other work', async () => {
  const { state, seen, provided, tracked, context, pass } = world()
  expect(fetchImage(tracked, image, context)).toBeUndefined()
  expect(fetchImage(tracked, image, context)).toBeUndefined()
  await pass(0)
  expect(seen).toMatchObject({ provided: 1, changes: 1 })
  expect(fetchImage(tracked, image, context)).toBe(provided)
  expect(tracked.fetch).toBeUndefined()
  state.whole = true
  expect(fetchImage(tracked, image, context), 'at once when it is whole').toBe(provided)

  state.whole = false
  state.gone = true
  fetchImage(tracked, image, context)
  await pass(0)
  expect(() => fetchImage(tracked, image, context)).toThrow('micro')
  fetchImage(tracked, image, context)
  dropFetch(tracked)
  const before = seen.changes
  await pass(0)
  expect(seen.changes, 'nobody wants it any more').toBe(before)
})

test('what is neither whole nor on its way starts nothing', async () => {
  const { provided, tracked, context, pass } = world()
  delete provided.filling
  fetchImage(tracked, image, context)
  await pass(0)
  expect(() => fetchImage(tracked, image, context)).toThrow('micro')
})
