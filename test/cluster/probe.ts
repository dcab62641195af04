import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

/** What a probe in a host is asked. */
export type ProbeRequest =
  | { ask: 'fetch'; address: string; bytes: number; timeoutMs: number }
  | { ask: 'call' }
  | { ask: 'heard' }

/** Stands in a host's network and tries its links. */
export interface Probe {
  /** Fetches bytes from another host's probe. @returns milliseconds; undefined when cut off */
  fetch(address: string, bytes?: number, timeoutMs?: number): Promise<number | undefined>
  /** Sends a multicast datagram to whoever listens. */
  call(): Promise<unknown>
  /** Addresses whose calls were heard since the last question. */
  heard(): Promise<string[]>
  stop(): Promise<void>
}

/** Starts a probe inside a host. It ends with the host's power too. */
export async function startProbe(host: { namespace: string; address: string }): Promise<Probe> {
  const program = fileURLToPath(new URL('./probe-process.ts', import.meta.url))
  const inside = ['netns', 'exec', host.namespace, process.execPath, program, host.address]
  const child = spawn('ip', inside, { stdio: ['pipe', 'pipe', 'inherit'] })
  const ended = once(child, 'exit')
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  const next = async () => {
    const { done, value } = await lines.next()
    if (done) throw new Error(`the probe in ${host.namespace} has ended`)
    return JSON.parse(value)
  }
  let last: Promise<unknown> = next()
  const ask = (request: ProbeRequest) => {
    const answer = last.then(() => {
      child.stdin.write(`${JSON.stringify(request)}\n`)
      return next()
    })
    last = answer.catch(() => {})
    return answer
  }
  await last
  return {
    fetch: async (address, bytes = 1, timeoutMs = 300) =>
      (await ask({ ask: 'fetch', address, bytes, timeoutMs })) ?? undefined,
    call: () => ask({ ask: 'call' }),
    heard: () => ask({ ask: 'heard' }),
    async stop() {
      child.stdin.end()
      await ended
    },
  }
}
