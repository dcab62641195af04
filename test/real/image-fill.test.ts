import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { promisify } from 'node:util'
import { expect, onTestFinished, test, vi } from 'vitest'
import { systemClock } from '../../base/clock.ts'
import { defaultLimits } from '../../base/limits.ts'
import { silentLog } from '../../base/log.ts'
import { imageDigest } from '../../images/encode-config.ts'
import { createTransfers } from '../../images/transfer/create-transfers.ts'
import { libraryOf, peerOf, setFaults, writeSourceFolder } from '../support/folder-sources.ts'
import { emptyPartialImage } from '../support/partial-image.ts'
import { randomImage } from '../support/random-layers.ts'
import { temporaryFolder } from '../support/temporary-folder.ts'

// Real threads, real files, a foreign NBD client.

const run = promisify(execFile)
const image = randomImage({ seed: 8, layerCount: 3, diskBlocks: 2_000 })
const digest = imageDigest(image.config)
const wait = { timeout: 20_000, interval: 50 }

function sourceFolder(): string {
  const folder = join(temporaryFolder(), 'source')
  writeSourceFolder(folder, image)
  return folder
}

function startTransfers() {
  const sourcesModule = new URL('../support/folder-sources.ts', import.meta.url)
  const transfers = createTransfers(
    { host: 'mac-1', limits: defaultLimits, sourcesModule },
    { clock: systemClock, log: silentLog },
  )
  onTestFinished(() => transfers.close())
  return transfers
}

/** Copies a whole export with a client that is not ours. */
async function copyExport(socket: string): Promise<Buffer> {
  const out = join(temporaryFolder(), 'out.raw')
  await run('nbdcopy', ['--no-extents', '--allocated', `nbd+unix:///?socket=${socket}`, out])
  return readFileSync(out)
}

test('guests read a disk on its way; no source: an I/O error; back again: it goes on', async () => {
  const transfers = startTransfers()
  const [first, second] = [sourceFolder(), sourceFolder()]
  const folder = emptyPartialImage(image)
  const sources = [peerOf(first), libraryOf(second)]
  const filling = transfers.fill({ digest, folder, want: 'demand', sources })
  const socket = join(temporaryFolder(), 'image.sock')
  const serving = await filling.serve(socket)
  const copied = await copyExport(socket)
  expect(copied.equals(image.disk)).toBe(true)
  await filling.done
  await serving.close()
  await filling.stop()

  const again = transfers.fill({
    digest,
    folder: emptyPartialImage(image),
    want: 'demand',
    sources,
  })
  for (const source of [first, second]) setFaults(source, { down: true })
  await again.serve(socket)
  await expect(copyExport(socket)).rejects.toThrow(/Input\/output error/)
  expect(again.progress().stalled).toContain('connection refused')
  for (const source of [first, second]) setFaults(source, {})
  again.setSources(sources)
  expect((await copyExport(socket)).equals(image.disk)).toBe(true)
})

test('an export is there again, at its place, when the thread has died', async () => {
  const transfers = startTransfers()
  const source = sourceFolder()
  const folder = emptyPartialImage(image)
  const sources = [libraryOf(source)]
  const filling = transfers.fill({ digest, folder, want: 'demand', sources })
  const socket = join(temporaryFolder(), 'image.sock')
  await filling.serve(socket)
  setFaults(source, { exits: true })
  await expect(copyExport(socket)).rejects.toThrow()
  await vi.waitFor(async () => {
    expect((await copyExport(socket)).equals(image.disk)).toBe(true)
  }, wait)
})

const kills = process.env['MACFLEET_TEST_LONG'] === undefined ? 3 : 25

test(`killed ${kills} times in the middle, it goes on from where it was`, async () => {
  const source = sourceFolder()
  const folder = emptyPartialImage(image)
  const script = join(import.meta.dirname, '../support/transfer-child.ts')
  const chunkCount = image.config.layers.reduce((sum, layer) => sum + layer.chunkCount, 0)
  let reached = 0
  for (let kill = 0; kill <= kills; kill++) {
    const isLast = kill === kills
    setFaults(source, isLast ? {} : { delayMs: 15 })
    const child = spawn(process.execPath, [script, digest, folder, source], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    onTestFinished(() => void child.kill('SIGKILL'))
    const exited = once(child, 'exit')
    const begins: number[] = []
    for await (const line of createInterface(child.stdout)) {
      begins.push(Number(line))
      // A flush, and somewhere beyond it: the next lines come every 200 ms.
      if (!isLast && begins.length > 2 + (kill % 3)) child.kill('SIGKILL')
    }
    const [code] = await exited
    if (isLast) expect(code).toBe(0)
    expect(begins[0]).toBeGreaterThanOrEqual(reached)
    // What was durable is there: all but what came since the last flush.
    reached = begins[0] ?? 0
  }
  expect(reached).toBeGreaterThan(0)
  expect(chunkCount).toBeGreaterThan(100)
  expect(readFileSync(join(folder, 'disk.raw')).equals(image.disk)).toBe(true)
})
