import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Timer } from '../../base/clock.ts'
import { failure, messageOf } from '../../base/errors.ts'
import { decodeConfig } from '../decode-config.ts'
import { fitLayers } from '../fit-layers.ts'
import { imageFiles } from '../image-files.ts'
import { readLayers } from '../image-folder.ts'
import { type NbdServer, serveDisk } from '../nbd/server.ts'
import { openPartialDisk } from '../partial/open-partial-disk.ts'
import type { ChunkName, PartialDisk } from '../partial/partial-disk.ts'
import type { SourceDescription } from '../sources/source.ts'
import { createFill, type Fill } from './fill.ts'
import { type FromTransfer, sayError, type ToTransfer } from './messages.ts'
import type { OpenSource, SourceComponents } from './open-source.ts'
import type { FillRequest } from './transfers.ts'

/** The fillings of the thread, by the numbers that the main thread gave them. */
export interface Fillings {
  fill(number: number, request: FillRequest, tellAll: boolean): void
  setSources(number: number, sources: SourceDescription[]): void
  setWant(number: number, want: FillRequest['want']): void
  serve(request: Extract<ToTransfer, { type: 'serve' }>): void
  endServing(number: number, serving: number): void
  stop(number: number): void
  close(): Promise<void>
}

/** Whom it answers. */
export interface FillingsInit {
  host: string
  rotten: readonly string[]
  send(message: FromTransfer): void
}

/** What it needs. */
export interface FillingsComponents extends SourceComponents {
  open: OpenSource
}

interface Entry {
  number: number
  /** Work on it, one after another; never rejects. */
  last: Promise<void>
  fill: Fill | undefined
  ended: boolean
  servings: Map<number, { server: NbdServer; release(): void }>
  release?: Timer
}

interface Context {
  init: FillingsInit
  components: FillingsComponents
  entries: Map<number, Entry>
  rotten: Set<string>
}

/** One that is whole is kept open for so long after its last reader: another may be coming. */
const releaseMs = 60_000

/** None yet. */
export function createFillings(init: FillingsInit, components: FillingsComponents): Fillings {
  const entries = new Map<number, Entry>()
  const context = { ...{ init, components, entries }, rotten: new Set(init.rotten) }
  /** Work on one filling goes in order, and what fails says so itself. */
  const queue = (number: number, work: (entry: Entry) => Promise<void> | void): void => {
    const entry = entries.get(number)
    if (entry !== undefined) entry.last = entry.last.then(() => work(entry))
  }
  return {
    fill(number, request, tellAll) {
      const entry: Entry = {
        ...{ number, last: Promise.resolve(), fill: undefined, ended: false },
        servings: new Map(),
      }
      entries.set(number, entry)
      queue(number, () => begin(context, entry, request, tellAll))
    },
    setSources: (number, sources) => queue(number, ({ fill }) => fill?.setSources(sources)),
    setWant: (number, want) => queue(number, ({ fill }) => fill?.setWant(want)),
    serve: request => queue(request.fill, entry => serve(context, entry, request)),
    endServing: (number, serving) => queue(number, entry => endServing(context, entry, serving)),
    stop: number => queue(number, entry => stop(context, entry)),
    async close() {
      for (const number of entries.keys()) queue(number, entry => stop(context, entry))
      await Promise.all(Array.from(entries.values(), ({ last }) => last))
    },
  }
}

async function begin(
  context: Context,
  entry: Entry,
  request: FillRequest,
  tellAll: boolean,
): Promise<void> {
  const { components, init, entries, rotten } = context
  const { number } = entry
  try {
    const { disk, layerDigests } = await openFolder(request.folder, components)
    const onStored = (names: readonly ChunkName[]) => tellStored(context, number, names)
    if (tellAll) onStored(servable(disk))
    const { digest, sources, want } = request
    entry.fill = createFill(
      { ...{ digest, sources, want, disk, layerDigests }, host: init.host },
      {
        ...components,
        allowanceBytes: () => components.limits.fillBytesInFlight / Math.max(1, entries.size),
        rotten: {
          has: name => rotten.has(name),
          add(name) {
            if (rotten.size < components.limits.rottenSources) rotten.add(name)
            init.send({ type: 'rotten', host: name })
          },
        },
      },
      {
        onProgress: progress => init.send({ type: 'progress', fill: number, progress }),
        onStored,
        onDone() {
          entry.ended = true
          init.send({ type: 'done', fill: number })
          releaseLater(context, entry)
        },
        // Told when nothing of it is open: whoever hears of it may begin again.
        onFailed(error) {
          entry.last = entry.last.then(() => stop(context, entry, error))
        },
      },
    )
  } catch (error) {
    await stop(context, entry, error)
  }
}

async function openFolder(folder: string, { limits }: FillingsComponents) {
  const config = decodeConfig(await readFile(join(folder, imageFiles.config)))
  const layers = fitLayers(config, await readLayers({ path: folder, config }), limits)
  const disk = await openPartialDisk({ folder, config, layers })
  return { disk, layerDigests: config.layers.map(({ digest }) => digest) }
}

/** What others can have of it, as it is now. */
function servable(disk: PartialDisk): ChunkName[] {
  return disk.layers.flatMap(({ index }, layer) => {
    const bits = disk.servable(layer)
    return Array.from(index.chunks.keys())
      .filter(chunk => ((bits[chunk >> 3] ?? 0) & (1 << (chunk & 7))) !== 0)
      .map(chunk => ({ layer, chunk }))
  })
}

function tellStored({ init }: Context, fill: number, names: readonly ChunkName[]): void {
  const byLayer = new Map<number, number[]>()
  for (const { layer, chunk } of names) {
    const chunks = byLayer.get(layer)
    if (chunks === undefined) byLayer.set(layer, [chunk])
    else chunks.push(chunk)
  }
  for (const [layer, chunks] of byLayer) init.send({ type: 'stored', fill, layer, chunks })
}

async function serve(
  context: Context,
  entry: Entry,
  { serving, path, owner }: Extract<ToTransfer, { type: 'serve' }>,
): Promise<void> {
  const { send } = context.init
  const answer = { type: 'serving', fill: entry.number, serving } as const
  const { fill } = entry
  if (fill === undefined) {
    const error = failure('imageFillEnded', { digest: '', detail: 'it could not be opened' })
    return send({ ...answer, error: sayError(error) })
  }
  const release = fill.hold()
  try {
    const server = await serveDisk({ path, owner, disk: fill.disk }, context.components)
    entry.servings.set(serving, { server, release })
    entry.release?.cancel()
    send(answer)
  } catch (error) {
    release()
    send({ ...answer, error: sayError(error) })
  }
}

async function endServing(context: Context, entry: Entry, serving: number): Promise<void> {
  const found = entry.servings.get(serving)
  entry.servings.delete(serving)
  found?.release()
  await found?.server.close().catch(error => {
    context.components.log.warn({ error: messageOf(error) }, 'an export did not end well')
  })
  context.init.send({ type: 'servingEnded', fill: entry.number, serving })
  releaseLater(context, entry)
}

/** What has ended is closed when nobody reads it any more. */
function releaseLater(context: Context, entry: Entry): void {
  if (!entry.ended || entry.servings.size > 0) return
  entry.release?.cancel()
  entry.release = context.components.clock.setTimer(releaseMs, () => {
    entry.last = entry.last.then(() => stop(context, entry))
  })
}

/** @param failed why it can not go on */
async function stop(context: Context, entry: Entry, failed?: unknown): Promise<void> {
  entry.release?.cancel()
  if (!context.entries.delete(entry.number)) return
  for (const { server } of entry.servings.values()) await server.close().catch(() => {})
  entry.servings.clear()
  await entry.fill?.close().catch(error => {
    context.components.log.warn({ error: messageOf(error) }, 'a filling did not end well')
  })
  const { send } = context.init
  if (failed !== undefined) send({ type: 'failed', fill: entry.number, error: sayError(failed) })
  send({ type: 'stopped', fill: entry.number })
}
