import { connect } from 'node:net'
import { type Clock, sleep } from '../base/clock.ts'

/** Where an SSH server may be. */
export interface SshProbeInit {
  host: string
  port: number
  /** For the connection and the banner together. */
  timeoutMs: number
  /** Ends the probe, with nothing found. */
  signal?: AbortSignal
}

/** Bytes read at most: a server may send other lines before its banner (RFC 4253, section 4.2). */
const readBytesMax = 8 * 1024
/** Bytes of a banner, CR and LF included (RFC 4253, section 4.2). */
const bannerBytesMax = 255

/**
 * Reads the banner of an SSH server, for example `SSH-2.0-OpenSSH_9.2p1`. User-mode networking
 * accepts a connection before the guest does, so only a banner proves that anyone is there.
 * @returns undefined when there is none in time, or what answers is no SSH server; never rejects
 */
export function readSshBanner(init: SshProbeInit, clock: Clock): Promise<string | undefined> {
  return new Promise(resolve => {
    const socket = connect({ host: init.host, port: init.port })
    let seen = ''
    const finish = (banner?: string) => {
      timer.cancel()
      init.signal?.removeEventListener('abort', onAbort)
      socket.destroy()
      resolve(banner)
    }
    const onAbort = () => finish()
    const timer = clock.setTimer(init.timeoutMs, finish)
    init.signal?.addEventListener('abort', onAbort)
    if (init.signal?.aborted) finish()
    socket.on('error', () => finish())
    socket.on('close', () => finish())
    socket.on('data', bytes => {
      seen += bytes.toString('latin1')
      const banner = bannerIn(seen)
      if (banner !== undefined || seen.length > readBytesMax) finish(banner)
    })
  })
}

const attempt = { timeoutMs: 6_000, firstMs: 250, mostMs: 1_000 }

/**
 * Waits until an SSH server answers, however long that takes. Attempts overlap: one that was made
 * before the guest had a network hangs for seconds (user-mode networking repeats its SYN late),
 * while a new one is answered at once.
 * @returns the banner
 * @throws the signal's reason
 */
export async function untilSshBanner(
  { host, port }: Pick<SshProbeInit, 'host' | 'port'>,
  clock: Clock,
  signal: AbortSignal,
): Promise<string> {
  const found = new AbortController()
  const probe = { host, port, timeoutMs: attempt.timeoutMs }
  const { promise, resolve } = Promise.withResolvers<string>()
  const tryOnce = async (): Promise<void> => {
    const ends = AbortSignal.any([signal, found.signal])
    const banner = await readSshBanner({ ...probe, signal: ends }, clock)
    if (banner !== undefined) resolve(banner)
  }
  try {
    for (let waitMs = attempt.firstMs; ; waitMs = Math.min(waitMs * 1.2, attempt.mostMs)) {
      void tryOnce()
      const banner = await Promise.race([promise, sleep(clock, waitMs, signal)])
      if (banner !== undefined) return banner
    }
  } finally {
    found.abort()
  }
}

/** The first complete line that is a banner of protocol 2 (or 1.99, which means both). */
function bannerIn(text: string): string | undefined {
  const lines = text.split('\n').slice(0, -1)
  const banner = lines.find(line => /^SSH-(2\.0|1\.99)-/.test(line))?.replace(/\r$/, '')
  if (banner === undefined || banner.length > bannerBytesMax - 2) return undefined
  return /^[\x20-\x7e]+$/.test(banner) ? banner : undefined
}
