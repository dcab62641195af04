import { connect, createServer, type Socket } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'

/** A way to a server that is as slow as a test wants it, and can be cut. */
export interface SlowLink {
  /** `127.0.0.1:40123` */
  readonly host: string
  /** Bytes a second towards the client, when the next `burstBytes` have gone. */
  limit(bytesPerSecond: number, burstBytes?: number): void
  /** Ends all connections and lets in none until `mend`. */
  cut(): void
  mend(): void
  close(): Promise<void>
}

/** Passes on what comes to a port of its own. @param target `127.0.0.1:5000` */
export async function startSlowLink(target: string): Promise<SlowLink> {
  const sockets = new Set<Socket>()
  let rate = Number.POSITIVE_INFINITY
  let burst = 0
  let isCut = false
  /** When the line is free again, by performance.now(). */
  let freeAtMs = 0
  const pass = async (bytes: Buffer): Promise<void> => {
    const free = Math.min(burst, bytes.length)
    burst -= free
    const now = performance.now()
    freeAtMs = Math.max(freeAtMs, now) + ((bytes.length - free) / rate) * 1000
    if (freeAtMs > now) await delay(freeAtMs - now)
  }
  const server = createServer(client => {
    if (isCut) return void client.destroy()
    const [address = '', port] = target.split(':')
    const upstream = connect(Number(port), address)
    for (const [one, other] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      sockets.add(one)
      one.on('error', () => {})
      one.on('close', () => {
        sockets.delete(one)
        other.destroy()
      })
    }
    client.pipe(upstream)
    upstream.on('data', async bytes => {
      upstream.pause()
      await pass(bytes)
      client.write(bytes)
      upstream.resume()
    })
  })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  const listening = server.address()
  if (listening === null || typeof listening === 'string') throw new Error('no port')
  const drop = () => {
    for (const socket of sockets) socket.destroy()
  }
  return {
    host: `127.0.0.1:${listening.port}`,
    limit(bytesPerSecond, burstBytes = 0) {
      rate = bytesPerSecond
      burst = burstBytes
      freeAtMs = 0
    },
    cut() {
      isCut = true
      drop()
    },
    mend() {
      isCut = false
    },
    async close() {
      const closed = new Promise(resolve => server.close(resolve))
      drop()
      await closed
    },
  }
}
