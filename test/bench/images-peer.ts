import { once } from 'node:events'
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { mkdir, readFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import { defaultLimits } from '../../base/limits.ts'
import { silentLog } from '../../base/log.ts'
import { startPeerServer } from '../../images/peers/peer-server.ts'
import type { BenchReport, BenchTask, PlainStyle } from '../support/peer-bench.ts'
import {
  incompressible,
  makePeerAuthority,
  makePeerHost,
  makePeerImage,
  type PeerHost,
  type PeerImage,
} from '../support/peer-images.ts'
import { type Bench, type BenchContext, figureOf, measureInTurns, ratioOf } from './harness.ts'

const MiB = 1024 * 1024
const program = new URL('../support/peer-bench.ts', import.meta.url)

/**
 * One host pulls a layer from another over loopback: read, hashed, encrypted and sent by the
 * server's thread; received, hashed and written to a partial disk by another. Beside it the same
 * bytes by plain HTTP/2 with the same certificates, file to file between two threads, hashed by
 * nobody: written as one does it first, and with the same windows, reads and writes as ours.
 */
export const bench: Bench = {
  timeoutMs: 10 * 60_000,
  async run(context) {
    const { quick, afterwards } = context
    const sizeBytes = (quick ? 128 : 512) * MiB
    const folder = mkdtempSync(join(tmpdir(), 'macfleet-bench-'))
    afterwards(() => rmSync(folder, { recursive: true, force: true }))
    const image = await makePeerImage(folder, [incompressible(sizeBytes)])
    const authority = makePeerAuthority()
    const hosts = { serving: makePeerHost(authority, 'a'), asking: makePeerHost(authority, 'b') }
    const pulling = await startPulling(image, hosts, folder, context)
    const common = await startPlain('common', image, hosts, folder, context)
    const tuned = await startPlain('tuned', image, hosts, folder, context)
    const rounds = quick ? 3 : 9
    const took = await measureInTurns(
      { pull: () => pulling(1), common, tuned },
      { rounds, patienceMs: quick ? 5_000 : 60_000 },
      context,
    )
    const { pull = [], common: plain = [], tuned: plainTuned = [] } = took
    const rate = (times: readonly number[]) => times.map(ms => sizeBytes / 1e3 / ms)
    const atLeast = { value: 0.8, bound: 'atLeast' } as const
    return {
      peerPull: figureOf('one host pulls from one peer over loopback', 'MB/s', rate(pull)),
      plainCommon: figureOf('the same bytes by plain mTLS HTTP/2', 'MB/s', rate(plain)),
      plainTuned: figureOf('the same, with our windows and buffers', 'MB/s', rate(plainTuned)),
      peerToPlain: ratioOf('speed of the pull to that of plain HTTP/2', plain, pull, atLeast),
      peerToTuned: ratioOf('the same to the tuned one', plainTuned, pull, atLeast),
    }
  },
}

type Hosts = Record<'serving' | 'asking', PeerHost>

function startThread(task: BenchTask, { afterwards }: BenchContext) {
  const worker = new Worker(program, { workerData: task, execArgv: [] })
  afterwards(() => worker.terminate())
  return {
    async report(): Promise<BenchReport> {
      const [report] = await once(worker, 'message')
      return report
    },
    end: () => worker.terminate(),
  }
}

/** Runs a task to its end. @returns the milliseconds that it says */
async function time(task: BenchTask, context: BenchContext): Promise<number> {
  const thread = startThread(task, context)
  const report = await thread.report()
  await thread.end()
  return 'tookMs' in report ? report.tookMs : Number.NaN
}

async function startPulling(
  { served }: PeerImage,
  { serving, asking }: Hosts,
  folder: string,
  context: BenchContext,
): Promise<(requests: number) => Promise<number>> {
  const server = await startPeerServer(
    { address: '127.0.0.1', port: 0, tls: serving.tls, limits: defaultLimits },
    {
      log: silentLog,
      findMember: async () => asking.name,
      onRot: ({ detail }) => context.say(`rot: ${detail}`),
      onFailed: ({ message }) => context.say(message),
    },
  )
  context.afterwards(() => server.close())
  server.setImage(served)
  const { name, identity } = serving
  const { config } = served
  const description = {
    kind: 'peer',
    name,
    identity,
    address: '127.0.0.1',
    port: server.port,
  } as const
  const layer = await readFile(join(served.folder, 'layer.0'))
  return async requests => {
    const target = join(folder, 'pulled')
    await mkdir(target)
    writeFileSync(join(target, 'disk.raw'), '')
    truncateSync(join(target, 'disk.raw'), config.virtualSizeBytes)
    const { tls } = asking
    const pull = {
      role: 'pull',
      folder: target,
      config,
      layer,
      tls,
      description,
      requests,
    } as const
    const tookMs = await time({ ...pull, discard: false }, context)
    rmSync(target, { recursive: true })
    return tookMs
  }
}

async function startPlain(
  style: PlainStyle,
  { served }: PeerImage,
  { serving, asking }: Hosts,
  folder: string,
  context: BenchContext,
): Promise<() => Promise<number>> {
  const file = join(served.folder, 'disk.raw')
  const thread = startThread({ role: 'serve', file, tls: serving.tls, style }, context)
  const report = await thread.report()
  const port = 'port' in report ? report.port : 0
  return async () => {
    const target = join(folder, 'plain')
    const tookMs = await time(
      { role: 'fetch', file: target, tls: asking.tls, style, port },
      context,
    )
    rmSync(target)
    return tookMs
  }
}
