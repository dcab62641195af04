import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, onTestFinished, test, vi } from 'vitest'
import { systemClock } from '../../base/clock.ts'
import { isFailure } from '../../base/errors.ts'
import { defaultLimits } from '../../base/limits.ts'
import { silentLog } from '../../base/log.ts'
import { createMetrics } from '../../base/metrics.ts'
import {
  askedChunks,
  libraryOf,
  peerOf,
  setFaults,
  writeSourceFolder,
} from '../../test/support/folder-sources.ts'
import { emptyPartialImage } from '../../test/support/partial-image.ts'
import { randomImage } from '../../test/support/random-layers.ts'
import { temporaryFolder } from '../../test/support/temporary-folder.ts'
import { imageDigest } from '../encode-config.ts'
import { layerFile } from '../image-files.ts'
import { createTransfers } from './create-transfers.ts'
import type { FillRequest, Transfers } from './transfers.ts'

const image = randomImage({ seed: 4, layerCount: 3, diskBlocks: 1_000 })
const digest = imageDigest(image.config)
const wait = { timeout: 15_000, interval: 20 }

function startTransfers(onRotten?: (host: string) => void) {
  const metrics = createMetrics()
  const sourcesModule = new URL('../../test/support/folder-sources.ts', import.meta.url)
  const transfers = createTransfers(
    { host: 'mac-1', limits: defaultLimits, sourcesModule },
    { clock: systemClock, log: silentLog, metrics, ...(onRotten && { onRotten }) },
  )
  onTestFinished(() => transfers.close())
  return { transfers, metrics }
}

const emptyImage = () => emptyPartialImage(image)

function sourceFolder(): string {
  const folder = join(temporaryFolder(), 'source')
  writeSourceFolder(folder, image)
  return folder
}

function fill(transfers: Transfers, folder: string, request: Partial<FillRequest>) {
  return transfers.fill({ digest, folder, want: 'all', sources: [], ...request })
}

function expectWhole(folder: string): void {
  expect(readFileSync(join(folder, 'disk.raw')).equals(image.disk)).toBe(true)
}

test('fills an image, and says how far it is and what is stored', async () => {
  const { transfers, metrics } = startTransfers()
  const folder = emptyImage()
  const filling = fill(transfers, folder, { sources: [libraryOf(sourceFolder())] })
  const stored = new Set<string>()
  filling.onStored(({ layer, chunks }) => {
    for (const chunk of chunks) {
      expect(stored.has(`${layer}/${chunk}`)).toBe(false)
      stored.add(`${layer}/${chunk}`)
    }
  })
  await filling.done
  expectWhole(folder)
  const { doneBytes, totalBytes, from, stalled } = filling.progress()
  expect(stalled).toBeUndefined()
  expect(doneBytes).toBe(totalBytes)
  expect(from).toEqual({ peer: 0, registry: 0, library: totalBytes, local: 0 })
  expect(stored.size).toBeGreaterThan(0)
  const text = await metrics.metrics()
  expect(text).toContain(`macfleet_image_fetched_bytes_total{source="library"} ${totalBytes}`)
  await filling.stop()
})

test('a thread that was begun ahead fills what comes, and ends where nothing does', async () => {
  const { transfers } = startTransfers()
  transfers.warm()
  transfers.warm()
  const folder = emptyImage()
  await fill(transfers, folder, { sources: [libraryOf(sourceFolder())] }).done
  expectWhole(folder)
  const { transfers: unused } = startTransfers()
  unused.warm()
  await unused.close()
  unused.warm()
  expect(() => fill(unused, folder, {})).toThrow('the daemon ends')
})

test('a host that serves rot is dropped, remembered and told of', async () => {
  const rotten = vi.fn()
  const { transfers } = startTransfers(rotten)
  const [bad, good] = [sourceFolder(), sourceFolder()]
  setFaults(bad, { rot: 'all' })
  const sources = [peerOf(bad), libraryOf(good)]
  const folder = emptyImage()
  const filling = fill(transfers, folder, { sources })
  await filling.done
  expectWhole(folder)
  expect(rotten.mock.calls).toEqual([[bad]])
  expect(filling.progress().from.peer).toBe(0)
  setFaults(bad, {})
  const asked = askedChunks(bad)
  const again = fill(transfers, emptyImage(), { sources })
  await again.done
  expect(askedChunks(bad)).toBe(asked)
})

test('sources that cut every answer, or stand still, do not keep the others', async () => {
  const { transfers } = startTransfers()
  const folders = [sourceFolder(), sourceFolder(), sourceFolder()]
  const [cutting = '', still = '', good = ''] = folders
  setFaults(cutting, { cutAfter: 1 })
  setFaults(still, { stalls: true })
  const folder = emptyImage()
  const sources = [peerOf(cutting), peerOf(still), libraryOf(good)]
  await fill(transfers, folder, { sources }).done
  expectWhole(folder)
})

test('with no source left it says why, and goes on when one is back', async () => {
  const { transfers } = startTransfers()
  const source = sourceFolder()
  setFaults(source, { delayMs: 20 })
  const folder = emptyImage()
  const filling = fill(transfers, folder, { sources: [libraryOf(source)] })
  await vi.waitFor(() => expect(filling.progress().doneBytes).toBeGreaterThan(0), wait)
  setFaults(source, { down: true })
  await vi.waitFor(() => {
    expect(filling.progress().stalled).toContain('connection refused')
  }, wait)
  setFaults(source, {})
  filling.setSources([libraryOf(source)])
  await filling.done
  expect(filling.progress().stalled).toBeUndefined()
  expectWhole(folder)
})

test('a thread that dies is started again and takes up what it was at', async () => {
  const { transfers } = startTransfers()
  const source = sourceFolder()
  const folder = emptyImage()
  setFaults(source, { delayMs: 20 })
  const filling = fill(transfers, folder, { sources: [libraryOf(source)] })
  await vi.waitFor(() => expect(filling.progress().doneBytes).toBeGreaterThan(0), wait)
  setFaults(source, { exits: true })
  await filling.done
  expectWhole(folder)
})

test('what was stopped is taken up where it was', async () => {
  const { transfers } = startTransfers()
  const source = sourceFolder()
  const folder = emptyImage()
  setFaults(source, { delayMs: 20 })
  const filling = fill(transfers, folder, { sources: [libraryOf(source)] })
  await vi.waitFor(() => expect(filling.progress().doneBytes).toBeGreaterThan(0), wait)
  const ended = filling.done.catch(error => error)
  await filling.stop()
  expect(isFailure(await ended, 'imageFillEnded')).toBe(true)
  const { doneBytes, totalBytes } = filling.progress()
  expect(doneBytes).toBeLessThan(totalBytes)
  setFaults(source, {})
  const again = fill(transfers, folder, { sources: [libraryOf(source)] })
  await again.done
  expectWhole(folder)
  expect(again.progress().from.local).toBeGreaterThanOrEqual(doneBytes)
  expect(again.progress().from.local + again.progress().from.library).toBe(totalBytes)
})

test('a folder that is not what it should be ends with the reason', async () => {
  const { transfers } = startTransfers()
  const folder = emptyImage()
  writeFileSync(join(folder, layerFile(1)), 'rot')
  const filling = fill(transfers, folder, { sources: [libraryOf(sourceFolder())] })
  const error = await filling.done.catch(thrown => thrown)
  expect(isFailure(error, 'layerIndexInvalid') || isFailure(error, 'imageConfigInvalid')).toBe(true)
  const serving = filling.serve(join(folder, 'nbd')).catch(thrown => thrown)
  expect(isFailure(await serving, 'imageFillEnded')).toBe(true)
  expect(existsSync(join(folder, 'nbd'))).toBe(false)
})
