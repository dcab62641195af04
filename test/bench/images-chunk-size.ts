import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  closeSync,
  cpSync,
  existsSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { crc32 } from 'node:zlib'
import { checkout } from '../../agent/dev/local-host.ts'
import { encodeLocations } from '../../images/format/locations.ts'
import { digestBytes, encodeFrame } from '../../images/format/packs.ts'
import {
  blockBytes,
  type Extent,
  encodeLayerIndex,
  type LayerChunk,
} from '../../images/layer-index.ts'
import { until } from '../support/host.ts'
import { type Bench, type BenchContext, type Figure, figureOf } from './harness.ts'

const KiB = 1024

/** How a disk is cut into chunks. */
interface Rule {
  name: string
  what: string
  /** Bytes of a chunk at most. */
  limitBytes: number
  /** Whether a chunk ends behind this block; undefined: at borders of `limitBytes` on the disk. */
  endsBehind?: (block: Buffer, chunkBlocks: number) => boolean
}
const windows = [256, 512, 1024, 2048, 4096].map(size => ({
  ...{ name: `Windows${size}`, what: `windows of ${size} KiB`, limitBytes: size * KiB },
}))
const byContent = [64, 128, 256, 512].map(least => ({
  ...{
    name: `Content${least}`,
    what: `cut by content, ${least} KiB at least`,
    limitBytes: 1024 * KiB,
  },
  // One block in as many as the least chunk has ends a chunk: twice the least on average.
  endsBehind: (block: Buffer, chunkBlocks: number) =>
    chunkBlocks >= least / 4 && crc32(block.subarray(0, 256)) % (least / 4) === 0,
}))
const rules: readonly Rule[] = [...windows, ...byContent]
const bootMs = 180_000
const megabyte = 1e6

/**
 * What the size of chunks, and where they are cut, costs and brings: bytes that a lazy boot of the
 * Debian guest fetches,
 * bytes that the same guest built again with one package more moves, and the size of the index.
 */
export const bench: Bench = {
  timeoutMs: 15 * 60_000,
  async run(context) {
    const { say, quick, afterwards } = context
    const folder = mkdtempSync(join(tmpdir(), 'macfleet-chunk-size-'))
    afterwards(() => rmSync(folder, { recursive: true, force: true }))
    execFileSync(join(checkout, 'script/guests/debian'), { stdio: ['ignore', 'ignore', 'inherit'] })
    const raw = toRaw(join(checkout, '.macfleet/guests/debian.qcow2'), join(folder, 'one.raw'))
    say('booting the guest, to see what it reads')
    const touched = await traceBoot(raw, folder, context)
    say(`it reads ${touched.size} blocks of 4 KiB`)
    const rebuilt = quick ? undefined : rebuild(folder, context)
    const figures: Record<string, Figure> = {}
    for (const rule of rules) {
      say(rule.what)
      Object.assign(figures, measure(rule, { raw, rebuilt, touched }))
    }
    return figures
  },
}

interface Guests {
  raw: string
  rebuilt: string | undefined
  /** The blocks that a boot reads. */
  touched: ReadonlySet<number>
}

function measure(rule: Rule, { raw, rebuilt, touched }: Guests): Record<string, Figure> {
  const chunks = cut(raw, rule)
  const sum = (some: readonly CutChunk[]) =>
    some.reduce((all, chunk) => all + chunk.frameBytes, 0) / megabyte
  const isTouched = ({ extents }: CutChunk) =>
    extents.some(({ offsetBytes, lengthBytes }) => {
      const end = (offsetBytes + lengthBytes) / blockBytes
      for (let at = offsetBytes / blockBytes; at < end; at++) if (touched.has(at)) return true
      return false
    })
  const boot = chunks.filter(isTouched)
  const { name } = rule
  const of = (what: string, value: number, unit: string) =>
    figureOf(`${rule.what}: ${what}`, unit, [value])
  const known = new Set(chunks.map(({ digest }) => digest))
  const fresh = rebuilt && cut(rebuilt, rule).filter(({ digest }) => !known.has(digest))
  return {
    [`stored${name}`]: of('all chunks, compressed', sum(chunks), 'MB'),
    [`boot${name}`]: of('chunks that a boot touches, compressed', sum(boot), 'MB'),
    [`bootChunks${name}`]: of('how many these are', boot.length, 'chunks'),
    ...(fresh && {
      [`rebuilt${name}`]: of('new chunks with one package more', sum(fresh), 'MB'),
      [`rebuiltChunks${name}`]: of(`how many of ${chunks.length}`, fresh.length, 'chunks'),
    }),
    [`index${name}`]: of('index and locations for 100 GB', indexMegabytes(chunks), 'MB'),
  }
}

interface CutChunk extends LayerChunk {
  frameBytes: number
}

/** Cuts a disk into chunks; blocks that are zero are left out. */
function cut(raw: string, { limitBytes, endsBehind }: Rule): CutChunk[] {
  const file = openSync(raw, 'r')
  const window = Buffer.alloc(limitBytes)
  const zero = Buffer.alloc(blockBytes)
  const chunks: CutChunk[] = []
  let extents: Extent[] = []
  let blocks: Buffer[] = []
  const flush = (): void => {
    if (blocks.length === 0) return
    const plain = Buffer.concat(blocks)
    chunks.push({ digest: digestBytes(plain), extents, frameBytes: encodeFrame(plain).length })
    extents = []
    blocks = []
  }
  for (let offset = 0; ; offset += limitBytes) {
    const length = readSync(file, window, 0, limitBytes, offset)
    if (length === 0) break
    if (endsBehind === undefined) flush()
    for (let at = 0; at < length; at += blockBytes) {
      const block = window.subarray(at, at + blockBytes)
      if (block.equals(zero)) continue
      if (endsBehind && isFarFrom(extents, offset + at)) flush()
      extend(extents, offset + at)
      blocks.push(Buffer.from(block))
      const isFull = blocks.length * blockBytes === limitBytes
      if (isFull || endsBehind?.(block, blocks.length)) flush()
    }
  }
  flush()
  closeSync(file)
  return chunks
}

/** What an import does likewise: a hole of 1 MiB ends a chunk. */
function isFarFrom(extents: readonly Extent[], offsetBytes: number): boolean {
  const last = extents.at(-1)
  return last !== undefined && offsetBytes - last.offsetBytes - last.lengthBytes >= 1024 * KiB
}

function extend(extents: Extent[], offsetBytes: number): void {
  const last = extents.at(-1)
  if (last !== undefined && last.offsetBytes + last.lengthBytes === offsetBytes) {
    last.lengthBytes += blockBytes
  } else {
    extents.push({ offsetBytes, lengthBytes: blockBytes })
  }
}

/** As large as those of this disk are, for 100 GB of data. */
function indexMegabytes(chunks: readonly CutChunk[]): number {
  const [last] = chunks.at(-1)?.extents.slice(-1) ?? []
  const virtualSizeBytes = (last?.offsetBytes ?? 0) + (last?.lengthBytes ?? 0)
  const index = encodeLayerIndex({ virtualSizeBytes, chunks: [...chunks], zeros: [] })
  let endBytes = 0
  const pack = {
    digest: digestBytes(index),
    sizeBytes: chunks.reduce((sum, { frameBytes }) => sum + frameBytes, 0),
  }
  const locations = encodeLocations(
    chunks.map(({ frameBytes: lengthBytes }) => {
      endBytes += lengthBytes
      return { pack, offsetBytes: endBytes - lengthBytes, lengthBytes }
    }),
  )
  const dataBytes = chunks.reduce(
    (sum, { extents }) => sum + extents.reduce((all, extent) => all + extent.lengthBytes, 0),
    0,
  )
  return ((index.length + locations.length) * (100e9 / dataBytes)) / megabyte
}

/** Starts the guest on an export that notes what is read, until it asks for a login. */
async function traceBoot(
  raw: string,
  folder: string,
  { afterwards, signal }: BenchContext,
): Promise<Set<number>> {
  const path = (name: string) => join(folder, name)
  const [socket, trace] = [path('nbd.sock'), path('trace')]
  const log = ['--filter=log', 'file', raw, `logfile=${trace}`]
  const server = spawn('nbdkit', ['-f', '-r', '-U', socket, ...log], { stdio: 'inherit' })
  afterwards(() => server.kill('SIGKILL'))
  await until('the export listens', async () => existsSync(socket) || undefined, 10_000)
  const backing = ['-b', `nbd+unix:///?socket=${socket}`, '-F', 'raw']
  const options = ['-o', 'cluster_size=128k,extended_l2=on']
  execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', ...options, ...backing, path('disk')])
  const [machine, drive] = [
    ['-accel', 'tcg', '-m', '512', '-smp', '2', '-nodefaults', '-display', 'none'],
    ['-drive', `file=${path('disk')},format=qcow2,if=virtio`, '-nic', 'user,model=virtio'],
  ]
  const args = [...machine, ...drive, '-serial', `file:${path('console')}`]
  const qemu = spawn('qemu-system-x86_64', args, { stdio: 'inherit' })
  afterwards(() => qemu.kill('SIGKILL'))
  const isUp = () =>
    signal.aborted ||
    (existsSync(path('console')) && readFileSync(path('console'), 'latin1').includes('login:'))
  await until('the guest asks for a login', async () => isUp() || undefined, bootMs)
  signal.throwIfAborted()
  for (const process of [qemu, server]) {
    process.kill('SIGTERM')
    if (process.exitCode === null && process.signalCode === null) await once(process, 'exit')
  }
  const touched = new Set<number>()
  for (const [, at, count] of readFileSync(trace, 'utf8').matchAll(
    /Read .*?offset=0x([0-9a-f]+) count=0x([0-9a-f]+)/g,
  )) {
    const start = Number.parseInt(at ?? '', 16)
    const end = start + Number.parseInt(count ?? '', 16)
    for (let block = Math.floor(start / blockBytes); block * blockBytes < end; block++) {
      touched.add(block)
    }
  }
  return touched
}

/** The same guest with one package more, from scratch. */
function rebuild(folder: string, { say }: BenchContext): string {
  say('building the guest again, with one package more')
  const script = join(folder, 'build/script/guests')
  cpSync(join(checkout, 'script/guests'), script, { recursive: true })
  const builder = join(script, 'debian')
  const text = readFileSync(builder, 'utf8')
  const more = text.replace('\n  kmod\n', '\n  kmod\n  nano\n')
  if (more === text) throw new Error('the list of packages looks otherwise')
  writeFileSync(builder, more)
  execFileSync(builder, [join(folder, 'guests')], {
    stdio: ['ignore', 'ignore', 'inherit'],
    env: {
      ...process.env,
      MACFLEET_CACHE_DIR: process.env['MACFLEET_CACHE_DIR'] ?? join(checkout, '.macfleet/cache'),
    },
  })
  return toRaw(join(folder, 'guests/debian.qcow2'), join(folder, 'two.raw'))
}

function toRaw(from: string, to: string): string {
  execFileSync('qemu-img', ['convert', '-f', 'qcow2', '-O', 'raw', from, to])
  if (statSync(to).size % blockBytes !== 0) throw new Error('the disk is whole blocks')
  return to
}
