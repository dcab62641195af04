import { createManualClock, type ManualClock } from '../../base/manual-clock.ts'

/** A network of links on a clock that is advanced by hand: bytes flow like water. */
export interface FluidNetwork {
  clock: ManualClock
  /** Each node has a link of its own, as fast in as out, in bytes a second. */
  setLink(node: string, bytesPerSecond: number): void
  /** Resolves when so many bytes have gone from one to the other; rejects when aborted. */
  send(transmission: Transmission, signal: AbortSignal): Promise<void>
  /** Bytes that a node has sent. */
  sentBytes(node: string): number
  /** Lets time pass until something is so. @returns the time in milliseconds */
  runUntil(isSo: () => boolean, mostMs: number): Promise<number>
}

/** Bytes that go from one node to another. */
export interface Transmission {
  from: string
  to: string
  bytes: number
  /** What goes over one connection shares what that gets. */
  connection: string
}

interface Flow {
  from: string
  to: string
  connection: string
  leftBytes: number
  resolve(): void
}

const stepMs = 10

/** Connections share each link evenly; what one can not use is lost: somewhat worse than TCP. */
export function createFluidNetwork(): FluidNetwork {
  const clock = createManualClock()
  const links = new Map<string, number>()
  const sent = new Map<string, number>()
  const flows = new Set<Flow>()

  const flow = (): void => {
    const outward = new Map<string, number>()
    const inward = new Map<string, number>()
    const connections = new Map<string, number>()
    for (const { connection } of flows) {
      connections.set(connection, (connections.get(connection) ?? 0) + 1)
    }
    for (const { from, to, connection } of flows) {
      const weight = 1 / (connections.get(connection) ?? 1)
      outward.set(from, (outward.get(from) ?? 0) + weight)
      inward.set(to, (inward.get(to) ?? 0) + weight)
    }
    for (const each of flows) {
      const sharing = connections.get(each.connection) ?? 1
      const share = (node: string, count: number) => (links.get(node) ?? 0) / count / sharing
      const perSecond = Math.min(
        share(each.from, outward.get(each.from) ?? 1),
        share(each.to, inward.get(each.to) ?? 1),
      )
      const bytes = Math.min(each.leftBytes, (perSecond * stepMs) / 1000)
      each.leftBytes -= bytes
      sent.set(each.from, (sent.get(each.from) ?? 0) + bytes)
      if (each.leftBytes > 0) continue
      flows.delete(each)
      each.resolve()
    }
  }
  return {
    clock,
    setLink: (node, bytesPerSecond) => links.set(node, bytesPerSecond),
    send({ from, to, bytes, connection }, signal) {
      return new Promise((resolve, reject) => {
        if (signal.aborted) return reject(signal.reason)
        const each: Flow = { from, to, connection, leftBytes: bytes, resolve }
        const onAbort = () => {
          flows.delete(each)
          reject(signal.reason)
        }
        signal.addEventListener('abort', onAbort, { once: true })
        each.resolve = () => {
          signal.removeEventListener('abort', onAbort)
          resolve()
        }
        flows.add(each)
      })
    },
    sentBytes: node => sent.get(node) ?? 0,
    async runUntil(isSo, mostMs) {
      const endMs = clock.monotonicMs() + mostMs
      while (!isSo() && clock.monotonicMs() < endMs) {
        await new Promise(resolve => setImmediate(resolve))
        await clock.advance(stepMs)
        flow()
        await new Promise(resolve => setImmediate(resolve))
      }
      return clock.monotonicMs()
    },
  }
}
