import { type LookupAddress, type LookupOptions, lookup } from 'node:dns'
import { BlockList, isIP } from 'node:net'

/**
 * Addresses that mean another service to each host: this host itself, its link, and where else
 * clouds keep the metadata of their machines, passwords among it. A registry that the operator did
 * not put there must not send us there.
 */
const inward = new BlockList()
inward.addSubnet('0.0.0.0', 8)
inward.addSubnet('127.0.0.0', 8)
inward.addSubnet('169.254.0.0', 16)
inward.addAddress('::', 'ipv6')
inward.addAddress('::1', 'ipv6')
inward.addSubnet('fe80::', 10, 'ipv6')
for (const metadata of ['100.100.100.200', '168.63.129.16']) inward.addAddress(metadata)
inward.addAddress('fd00:ec2::254', 'ipv6')
// The first two through a gateway from IPv6 to IPv4 (RFC 6052).
inward.addSubnet('64:ff9b::7f00:0', 104, 'ipv6')
inward.addSubnet('64:ff9b::a9fe:0', 112, 'ipv6')

/** Whether a host of a URL, a name or an address, is such. Other names show it once resolved. */
export function isInward(hostname: string): boolean {
  const bare = hostname.replace(/^\[|\]$/g, '')
  const family = isIP(bare)
  if (family === 0) return bare === 'localhost' || bare.endsWith('.localhost')
  return inward.check(bare, family === 6 ? 'ipv6' : 'ipv4')
}

type Callback = (
  error: NodeJS.ErrnoException | null,
  address: string | LookupAddress[],
  family?: number,
) => void

/** As dns.lookup, for connections; addresses that are inward are left out. */
export function guardedLookup(hostname: string, options: LookupOptions, callback: Callback): void {
  lookup(hostname, { ...options, all: true }, (error, found) => {
    const [first, ...rest] = error ? [] : found.filter(({ address }) => !isInward(address))
    if (first === undefined) {
      const missing = Object.assign(new Error('no outward address'), { code: 'ENOTFOUND' })
      callback(error ?? missing, options.all ? [] : '')
    } else if (options.all) {
      callback(null, [first, ...rest])
    } else {
      callback(null, first.address, first.family)
    }
  })
}
