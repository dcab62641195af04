import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { onTestFinished } from 'vitest'
import { type Clock, systemClock } from '../../base/clock.ts'
import { defaultLimits, type Limits } from '../../base/limits.ts'
import type { Log } from '../../base/log.ts'
import { createSeededRandom } from '../../base/random.ts'

/** One request that came, as it came. */
export interface SeenRequest {
  method: string
  url: string
  headers: IncomingMessage['headers']
}

/** A real HTTP server on loopback that says what a test makes it say. */
export interface LyingServer {
  /** `127.0.0.1:40123` */
  host: string
  seen: SeenRequest[]
}

/** Ends with the running test. */
export async function startLyingServer(
  answer: (request: IncomingMessage, response: ServerResponse) => void,
): Promise<LyingServer> {
  const seen: SeenRequest[] = []
  const server = createServer((request, response) => {
    const { method = '', url = '', headers } = request
    seen.push({ method, url, headers })
    response.on('error', () => {})
    answer(request, response)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(() => {
    server.closeAllConnections()
    server.close()
  })
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('no port')
  return { host: `127.0.0.1:${address.port}`, seen }
}

/** `sha256:` and the hash of some bytes. */
export function digestOfBytes(bytes: Uint8Array | string): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`
}

/** What the parts of a registry client are made of, for tests: time runs a hundred times as fast. */
export function fastComponents(limits: Partial<Limits> = {}) {
  const lines: string[] = []
  return {
    clock: hastyClock(100),
    random: createSeededRandom(1),
    log: rememberingLog(lines),
    limits: { ...defaultLimits, ...limits },
    /** All that was logged. */
    lines,
  }
}

/** The machine's clock, run so many times as fast. */
export function hastyClock(factor: number): Clock {
  return {
    wallMs: () => systemClock.wallMs(),
    monotonicMs: () => systemClock.monotonicMs() * factor,
    setTimer: (delayMs, callback) => systemClock.setTimer(delayMs / factor, callback),
  }
}

function rememberingLog(lines: string[]): Log {
  const note = (fields: object, message: string): void => {
    lines.push(`${message} ${JSON.stringify(fields)}`)
  }
  const log: Log = { debug: note, info: note, warn: note, error: note, child: () => log }
  return log
}
