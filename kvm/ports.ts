import { createSocket } from 'node:dgram'
import { createServer } from 'node:net'
import { failure } from '../base/errors.ts'
import { type Random, randomInteger } from '../base/random.ts'
import type { PortForward } from './machine.ts'

/** A port of a guest that shall be reached from outside. */
export interface WantedPort {
  protocol: 'TCP' | 'UDP'
  guestPort: number
  /** The user's choice: this one or none. */
  hostPort?: number | undefined
  /** What the guest had at its last start: kept when it is still free. */
  lastHostPort?: number | undefined
}

/** A port of the host that a guest has, running or not. */
export interface HeldPort {
  protocol: 'TCP' | 'UDP'
  hostPort: number
  /** Who has it, for the error's sentence; for example `the virtual machine default/web`. */
  holder: string
}

/** Where ports are taken from. */
export interface PortRange {
  /** An IPv4 address of the host. */
  address: string
  first: number
  last: number
}

/** Below Linux's ephemeral ports (32768 and up), which any program may be using. */
export const defaultPortRange: PortRange = { address: '127.0.0.1', first: 20_000, last: 29_999 }

/** Whether a port can be bound now. */
export type PortProbe = (address: string, port: number, protocol: 'TCP' | 'UDP') => Promise<boolean>

/** What choosing ports needs. */
export interface PortComponents {
  random: Random
  isFree: PortProbe
}

/**
 * Gives each wanted port a port of the host. The search begins at a random place, so that daemons
 * which share a machine seldom try the same. Another program may still be faster: QEMU then fails
 * to start, and the next start chooses again.
 * @param held the ports of all other guests of this host
 * @throws portTaken, portsExhausted
 */
export async function choosePorts(
  wanted: readonly WantedPort[],
  held: readonly HeldPort[],
  range: PortRange,
  components: PortComponents,
): Promise<PortForward[]> {
  const taken = new Map(held.map(port => [keyOf(port.protocol, port.hostPort), port.holder]))
  const chosen: (PortForward | undefined)[] = wanted.map(() => undefined)
  // What users ask for comes first, or a port that we chose could be in its way.
  for (const exact of [true, false]) {
    for (const [index, port] of wanted.entries()) {
      if ((port.hostPort !== undefined) !== exact) continue
      const hostPort = exact
        ? await takeExactly(port, taken, range, components)
        : await takeAny(port, taken, range, components)
      taken.set(keyOf(port.protocol, hostPort), 'another port of the same virtual machine')
      const { protocol, guestPort } = port
      chosen[index] = { protocol, guestPort, hostPort, hostAddress: range.address }
    }
  }
  return chosen.filter(forward => forward !== undefined)
}

async function takeExactly(
  wanted: WantedPort,
  taken: ReadonlyMap<string, string>,
  { address }: PortRange,
  { isFree }: PortComponents,
): Promise<number> {
  const { protocol, hostPort: port = 0 } = wanted
  const holder = taken.get(keyOf(protocol, port))
  if (holder !== undefined) throw failure('portTaken', { port, protocol, address, holder })
  if (await isFree(address, port, protocol)) return port
  throw failure('portTaken', { port, protocol, address, holder: 'a program on this host' })
}

async function takeAny(
  wanted: WantedPort,
  taken: ReadonlyMap<string, string>,
  range: PortRange,
  components: PortComponents,
): Promise<number> {
  const { address, first, last } = range
  const usable = async (port: number) =>
    !taken.has(keyOf(wanted.protocol, port)) &&
    (await components.isFree(address, port, wanted.protocol))
  if (wanted.lastHostPort !== undefined && (await usable(wanted.lastHostPort))) {
    return wanted.lastHostPort
  }
  const count = last - first + 1
  const start = randomInteger(components.random, count)
  for (let step = 0; step < count; step++) {
    const port = first + ((start + step) % count)
    if (await usable(port)) return port
  }
  throw failure('portsExhausted', { address, first, last })
}

function keyOf(protocol: string, port: number): string {
  return `${protocol}/${port}`
}

/** Binds the port and lets it go. */
export const isPortFree: PortProbe = (address, port, protocol) =>
  new Promise(resolve => {
    if (protocol === 'UDP') {
      const socket = createSocket('udp4')
      socket.once('error', () => socket.close(() => resolve(false)))
      socket.bind({ address, port, exclusive: true }, () => socket.close(() => resolve(true)))
      return
    }
    const server = createServer()
    server.once('error', () => resolve(false))
    server.listen({ host: address, port, exclusive: true }, () => server.close(() => resolve(true)))
  })
