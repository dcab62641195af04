import { failure } from '../../base/errors.ts'
import { defaultLimits } from '../../base/limits.ts'
import { silentLog } from '../../base/log.ts'
import { createSeededRandom } from '../../base/random.ts'
import { composeLayers } from '../../images/composition.ts'
import { chunkBytes, type LayerIndex } from '../../images/layer-index.ts'
import type { ChunkName, PartialDisk } from '../../images/partial/partial-disk.ts'
import type { ImageSource, LayerSource, SourceDescription } from '../../images/sources/source.ts'
import { emptyBits, hasBit, putBit } from '../../images/transfer/bitmap.ts'
import { createFill, type Fill } from '../../images/transfer/fill.ts'
import { createFluidNetwork, type FluidNetwork } from './fluid-network.ts'

/** Hosts that fill the same image from one registry and from each other, on a virtual clock. */
export interface Swarm {
  network: FluidNetwork
  hosts: SwarmHost[]
  imageBytes: number
  /** The disks of all hosts take no more bytes from now on, or do again. */
  setFull(isFull: boolean): void
  /** What is asked of this node fails from now on, or not any more. */
  setDown(node: string, isDown: boolean): void
  close(): Promise<void>
}

/** One of its hosts. */
export interface SwarmHost {
  name: string
  fill: Fill
  isDone(): boolean
  doneAtMs: number
  /** Why it could not go on. */
  failure: unknown
}

/** How a swarm is made. */
export interface SwarmInit {
  hostCount: number
  chunkCount: number
  /** Of each link, in bytes a second. */
  bytesPerSecond: number
  seed: number
  want?: 'all' | 'demand'
}

const registry: SourceDescription = {
  ...{ kind: 'registry', name: 'registry', repository: 'team/base', locations: {} },
  access: { host: 'registry.example.test' },
}
const latencyMs = 5
const bytes = Buffer.alloc(chunkBytes)

/** Starts all of them at once; each knows the registry and all the others. */
export function createSwarm(init: SwarmInit): Swarm {
  const network = createFluidNetwork()
  const index = plainIndex(init.chunkCount)
  const down = new Set<string>()
  const room: Room = { isFull: false }
  const names = Array.from({ length: init.hostCount }, (_, at) => `mac-${at}`)
  for (const node of ['registry', ...names]) network.setLink(node, init.bytesPerSecond)
  const durable = new Map(names.map(name => [name, emptyBits(init.chunkCount)]))
  const hosts = names.map((name, at): SwarmHost => {
    const sources = names
      .filter(other => other !== name)
      .map(other => ({
        kind: 'peer' as const,
        name: other,
        identity: '',
        address: '192.0.2.1',
        port: 1,
      }))
    const host = {
      name,
      isDone: () => host.doneAtMs > 0,
      doneAtMs: 0,
      failure: undefined,
    } as SwarmHost
    const open = async ({ name: from }: SourceDescription) =>
      createSource({ network, from, to: name, held: durable.get(from), down })
    host.fill = createFill(
      {
        ...{ digest: 'sha256:0', host: name, layerDigests: ['sha256:1'] },
        want: init.want ?? 'all',
        disk: createMemoryDisk(index, durable.get(name) ?? emptyBits(0), room),
        sources: [registry, ...sources],
      },
      {
        ...{ clock: network.clock, log: silentLog, limits: defaultLimits, open },
        random: createSeededRandom(init.seed * 1000 + at),
        allowanceBytes: () => defaultLimits.fillBytesInFlight,
        rotten: new Set<string>(),
      },
      {
        onProgress: () => {},
        onStored: () => {},
        onDone: () => {
          host.doneAtMs = network.clock.monotonicMs()
        },
        onFailed: error => {
          host.failure = error
        },
      },
    )
    return host
  })
  return {
    network,
    hosts,
    imageBytes: init.chunkCount * chunkBytes,
    setFull(isFull) {
      room.isFull = isFull
    },
    setDown(node, isDown) {
      if (isDown) down.add(node)
      else down.delete(node)
    },
    async close() {
      const closed = Promise.all(hosts.map(({ fill }) => fill.close()))
      await network.clock.advance(100)
      await closed
    },
  }
}

function plainIndex(count: number): LayerIndex {
  const chunks = Array.from({ length: count }, (_, at) => ({
    digest: `sha256:${String(at).padStart(64, '0')}`,
    extents: [{ offsetBytes: at * chunkBytes, lengthBytes: chunkBytes }],
  }))
  return { virtualSizeBytes: count * chunkBytes, chunks, zeros: [] }
}

interface Room {
  isFull: boolean
}

interface SourceInit {
  network: FluidNetwork
  from: string
  to: string
  /** Undefined: all. */
  held: Uint8Array | undefined
  down: Set<string>
}

function createSource({ network, from, to, held, down }: SourceInit): ImageSource {
  let requests = 0
  const check = () => {
    const detail = 'connection refused'
    if (down.has(from)) throw failure('sourceFailed', { source: from, detail })
  }
  const pause = () =>
    new Promise<void>(resolve => network.clock.setTimer(latencyMs, () => resolve()))
  const layer: LayerSource = {
    async held() {
      await pause()
      check()
      return held === undefined ? undefined : Uint8Array.from(held)
    },
    async *fetch(chunks, signal) {
      await pause()
      // HTTP/2 among hosts, a connection for each request to a registry.
      const connection = held === undefined ? `${to} ${requests++}` : `${from} ${to}`
      for (const number of chunks) {
        check()
        if (held !== undefined && !hasBit(held, number)) continue
        await network.send({ from, to, bytes: chunkBytes, connection }, signal)
        check()
        yield { number, bytes }
      }
    },
  }
  return {
    name: from,
    kind: from === 'registry' ? 'registry' : 'peer',
    async *readBlob() {},
    async openLayer() {
      await pause()
      check()
      return layer
    },
    async close() {},
  }
}

/** Keeps no bytes, only which are here. @param durable is filled by `flush` */
function createMemoryDisk(index: LayerIndex, durable: Uint8Array, room: Room): PartialDisk {
  const here = emptyBits(index.chunks.length)
  const virtualSizeBytes = index.virtualSizeBytes
  let presentBytes = 0
  let loose: ChunkName[] = []
  const missing = (first: number, end: number): ChunkName[] => {
    const names: ChunkName[] = []
    for (let chunk = first; chunk < end; chunk++) {
      if (!hasBit(here, chunk)) names.push({ layer: 0, chunk })
    }
    return names
  }
  return {
    virtualSizeBytes,
    layers: composeLayers([index]),
    wantedBytes: virtualSizeBytes,
    presentBytes: () => presentBytes,
    has: ({ chunk }) => hasBit(here, chunk),
    servable: () => Uint8Array.from(durable),
    missing: (offset, length) =>
      missing(Math.floor(offset / chunkBytes), Math.ceil((offset + length) / chunkBytes)),
    allMissing: () => missing(0, index.chunks.length),
    async put(name, chunk) {
      if (room.isFull) throw failure('diskFull', { folder: '/images', detail: 'ENOSPC' })
      putBit(here, name.chunk, true)
      presentBytes += chunk.length
      loose.push(name)
    },
    async flush() {
      const flushed = loose
      loose = []
      for (const { chunk } of flushed) putBit(durable, chunk, true)
      return flushed
    },
    readChunk: async () => bytes,
    read: async (_, lengthBytes) => Buffer.alloc(lengthBytes),
    async close() {},
  }
}
