import { isIPv4 } from 'node:net'

/** The service by which hosts find each other in a rack (RFC 6763). */
export const serviceName = '_macfleet._tcp.local'

/** A host that was found. Anybody may have said this: it says where to ask, and nothing more. */
export interface FoundHost {
  /** IPv4. */
  address: string
  /** Where it can be asked to join. */
  peerPort: number
  /** Of which fleet it is (`fleetTagOf`). */
  fleetTag: string
}

/** A DNS record, as multicast-dns reads and writes it. */
export interface DnsRecord {
  name: string
  type: string
  ttl?: number
  data?: unknown
}

const ttlSeconds = 120
/** Records of one packet that are looked at. */
const recordsMost = 64

/**
 * What a host says of itself: where it can be asked, and of which fleet it is.
 * @param label a name without meaning, so that the records hang together
 */
export function recordsOf(label: string, host: FoundHost): DnsRecord[] {
  const instance = `${label}.${serviceName}`
  const target = `${label}.local`
  const ttl = ttlSeconds
  return [
    { name: serviceName, type: 'PTR', ttl, data: instance },
    { name: instance, type: 'SRV', ttl, data: { port: host.peerPort, target } },
    { name: instance, type: 'TXT', ttl, data: [`fleet=${host.fleetTag}`] },
    { name: target, type: 'A', ttl, data: host.address },
  ]
}

/** The host that the records of a packet speak of; undefined when they speak of none of ours. */
export function hostIn(
  records: readonly DnsRecord[],
): { label: string; host: FoundHost } | undefined {
  if (records.length > recordsMost) return undefined
  const service = records.find(({ type, name }) => type === 'SRV' && name.endsWith(serviceName))
  if (service === undefined) return undefined
  const { port, target } = (service.data ?? {}) as { port?: unknown; target?: unknown }
  const address = records.find(({ type, name }) => type === 'A' && name === target)?.data
  const text = records.find(({ type, name }) => type === 'TXT' && name === service.name)?.data
  const fleetTag = tagIn(text)
  if (!Number.isInteger(port) || Number(port) < 1 || Number(port) > 65_535) return undefined
  if (typeof address !== 'string' || !isUnicast(address) || fleetTag === undefined) return undefined
  const label = service.name.slice(0, -serviceName.length - 1)
  return { label, host: { address, peerPort: Number(port), fleetTag } }
}

function tagIn(data: unknown): string | undefined {
  const texts = (Array.isArray(data) ? data : [data]).slice(0, recordsMost)
  for (const text of texts) {
    const bytes = typeof text === 'string' || text instanceof Uint8Array ? text : ''
    const found = /^fleet=([0-9a-f]{16})$/.exec(
      Buffer.from(bytes).subarray(0, 64).toString('latin1'),
    )
    if (found !== null) return found[1]
  }
  return undefined
}

function isUnicast(address: string): boolean {
  const first = Number(address.split('.')[0])
  return isIPv4(address) && first > 0 && first < 224
}
