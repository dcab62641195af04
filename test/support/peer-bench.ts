import { once } from 'node:events'
import { createReadStream, createWriteStream } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { connect, createSecureServer, type ServerHttp2Stream } from 'node:http2'
import type { AddressInfo } from 'node:net'
import { pipeline } from 'node:stream/promises'
import { parentPort, workerData } from 'node:worker_threads'
import { systemClock } from '../../base/clock.ts'
import { defaultLimits } from '../../base/limits.ts'
import { writeAt } from '../../images/file-bytes.ts'
import type { ImageConfig } from '../../images/image-record.ts'
import { decodeLayerIndex } from '../../images/layer-index.ts'
import { openPartialDisk } from '../../images/partial/open-partial-disk.ts'
import { createPeerSource } from '../../images/peers/peer-source.ts'
import type { PeerDescription } from '../../images/sources/source.ts'
import type { TransferTls } from '../../images/transfer/transfers.ts'

/** What one of the bench's threads does. */
export type BenchTask =
  | { role: 'serve'; file: string; tls: TransferTls; style: PlainStyle }
  | { role: 'fetch'; file: string; tls: TransferTls; style: PlainStyle; port: number }
  | {
      role: 'pull'
      folder: string
      config: ImageConfig
      layer: Uint8Array
      tls: TransferTls
      description: PeerDescription
      requests: number
      /** Without the disk: what comes is only counted. */
      discard: boolean
    }

/**
 * How a plain transfer is written: as one writes it first, with streams and what Node sets, or
 * with the windows, reads and writes that our own transfer has.
 */
export type PlainStyle = 'common' | 'tuned'

/** What the thread says: the port that it serves on, or the milliseconds that it took. */
export type BenchReport = { port: number } | { tookMs: number }

const MiB = 1024 * 1024
const streamWindowBytes = 8 * MiB
const sessionWindowBytes = 32 * MiB

function say(report: BenchReport): void {
  parentPort?.postMessage(report)
}

async function serve({ file, tls, style }: BenchTask & { role: 'serve' }): Promise<void> {
  const server = createSecureServer({
    ...{ cert: tls.certificate, key: tls.key, ca: tls.authorities },
    ...{ requestCert: true, rejectUnauthorized: true, minVersion: 'TLSv1.3' },
    maxSessionMemory: 64,
  })
  server.on('stream', stream => {
    stream.respond({ ':status': 200 })
    if (style === 'common') void pipeline(createReadStream(file), stream)
    else void sendFile(file, stream)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  say({ port: (server.address() as AddressInfo).port })
}

async function sendFile(path: string, stream: ServerHttp2Stream): Promise<void> {
  const file: FileHandle = await open(path)
  const { size } = await file.stat()
  let sending: Promise<unknown> = Promise.resolve()
  for (let at = 0; at < size; at += MiB) {
    const { buffer } = await file.read(Buffer.allocUnsafeSlow(MiB), 0, MiB, at)
    await sending
    sending = new Promise(resolve => stream.write(buffer, resolve))
  }
  await sending
  stream.end()
  await file.close()
}

async function fetchPlain({ file, tls, style, port }: BenchTask & { role: 'fetch' }) {
  const tuned = style === 'tuned'
  const session = connect(`https://127.0.0.1:${port}`, {
    ...{ cert: tls.certificate, key: tls.key, ca: tls.authorities },
    checkServerIdentity: () => undefined,
    maxSessionMemory: 64,
    ...(tuned ? { settings: { initialWindowSize: streamWindowBytes } } : {}),
  })
  await once(session, 'remoteSettings')
  if (tuned) session.setLocalWindowSize(sessionWindowBytes)
  const beganMs = performance.now()
  const stream = session.request({ ':path': '/' })
  if (tuned) {
    const out = await open(file, 'w')
    const window = Buffer.allocUnsafeSlow(MiB)
    let filled = 0
    let offset = 0
    stream.on('data', (piece: Buffer) => {
      for (let at = 0; at < piece.length; ) {
        const taken = Math.min(MiB - filled, piece.length - at)
        window.set(piece.subarray(at, at + taken), filled)
        at += taken
        filled += taken
        if (filled < MiB) continue
        writeAt(out.fd, window, 0, MiB, offset)
        offset += MiB
        filled = 0
      }
    })
    await once(stream, 'end')
    writeAt(out.fd, window, 0, filled, offset)
    await out.close()
  } else await pipeline(stream, createWriteStream(file))
  say({ tookMs: performance.now() - beganMs })
  session.destroy()
}

async function pull(task: BenchTask & { role: 'pull' }): Promise<void> {
  const index = decodeLayerIndex(task.layer, defaultLimits)
  const layers = [index]
  const { folder, config } = task
  const disk = task.discard ? undefined : await openPartialDisk({ folder, config, layers })
  const components = { clock: systemClock, limits: defaultLimits, tls: () => task.tls }
  const source = createPeerSource(task.description, components)
  const { signal } = new AbortController()
  const layer = await source.openLayer(config.layers[0]?.digest ?? '', index, signal)
  await layer.held(signal)
  const beganMs = performance.now()
  const each = Math.ceil(index.chunks.length / task.requests)
  const all = [...index.chunks.keys()]
  const parts = Array.from({ length: task.requests }, (_, at) =>
    all.slice(at * each, (at + 1) * each),
  )
  await Promise.all(
    parts.map(async part => {
      for await (const { number, bytes, release } of layer.fetch(part, signal)) {
        await disk?.put({ layer: 0, chunk: number }, bytes)
        release?.()
      }
    }),
  )
  say({ tookMs: performance.now() - beganMs })
  await source.close()
  await disk?.close()
}

const task: BenchTask = workerData
if (task.role === 'serve') await serve(task)
else if (task.role === 'fetch') await fetchPlain(task)
else await pull(task)
