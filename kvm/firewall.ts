import { readFile } from 'node:fs/promises'
import { isIP, isIPv4, isIPv6 } from 'node:net'
import type { NetworkInterfaceInfo } from 'node:os'
import type { CommandRunner } from '../base/command.ts'
import { assert } from '../base/errors.ts'
import type { UserRange } from './guest-user.ts'

/** What the firewall of one daemon's guests is made from. */
export interface FirewallInit {
  /** Part of the table's name, so that several daemons share a machine; letters, digits, `_`. */
  name: string
  users: UserRange
  /** Name servers of this host, which QEMU asks for its guests. */
  resolvers: readonly string[]
  /** Networks that guests may not reach, as address/bits: those of the host and the operator's. */
  closedNetworks: readonly string[]
}

const timeoutMs = 10_000

/** Link-local, multicast and broadcast: neighbours, and the metadata service of clouds. */
const neverReached = [
  '169.254.0.0/16',
  '224.0.0.0/4',
  '255.255.255.255/32',
  'fe80::/10',
  'ff00::/8',
]

/**
 * The nftables rules for packets of the guests' users, which is all that user networking sends.
 * Replies on their own forwards pass; so does the question to a name server. This host and its
 * networks are refused at once, so that a program in a guest fails and does not hang. What is
 * routed on (the internet) passes: only its next hop is on our network, not its address. One
 * transaction that replaces what was there (nft(8)).
 */
export function firewallRules(init: FirewallInit): string {
  const { users } = init
  const closed = [...neverReached, ...init.closedNetworks]
  const table = tableName(init.name)
  const refuse = 'reject with icmpx admin-prohibited'
  return `
table inet ${table} {}
delete table inet ${table}
table inet ${table} {
${addressSet('resolvers4', 'ipv4_addr', init.resolvers.filter(isIPv4))}
${addressSet('resolvers6', 'ipv6_addr', init.resolvers.filter(isIPv6))}
${addressSet('closed4', 'ipv4_addr', networksOf(closed, 4))}
${addressSet('closed6', 'ipv6_addr', networksOf(closed, 6))}
  chain guests {
    ct state established,related accept
    ip daddr @resolvers4 meta l4proto { tcp, udp } th dport 53 accept
    ip6 daddr @resolvers6 meta l4proto { tcp, udp } th dport 53 accept
    oifname "lo" counter ${refuse}
    fib daddr type { local, broadcast, multicast, anycast } counter ${refuse}
    ip daddr @closed4 counter ${refuse}
    ip6 daddr @closed6 counter ${refuse}
  }
  chain output {
    type filter hook output priority filter; policy accept;
    meta skuid ${users.first}-${users.last} jump guests
  }
}
`
}

function tableName(name: string): string {
  assert(/^\w{1,32}$/.test(name), `not a name for a table: ${name}`)
  return `macfleet_${name}`
}

function addressSet(name: string, type: string, elements: readonly string[]): string {
  const content = elements.length === 0 ? '' : `elements = { ${elements.join(', ')} };`
  return `  set ${name} { type ${type}; flags interval; auto-merge; ${content} }`
}

function networksOf(networks: readonly string[], version: 4 | 6): string[] {
  return networks.filter(network => {
    const [address = '', bits = ''] = network.split('/')
    const found = isIP(address)
    assert(found !== 0 && /^\d{1,3}$/.test(bits), `not a network: ${network}`)
    return found === version
  })
}

/**
 * Puts the rules in the place of earlier ones, at once or not at all. @throws commandMissing,
 * commandFailed
 */
export async function applyFirewall(init: FirewallInit, run: CommandRunner): Promise<void> {
  await run('nft', ['-f', '-'], { timeoutMs, input: firewallRules(init) })
}

/** Whether the table is there: other programs of the host may flush all tables, and do. */
export async function firewallStands(name: string, run: CommandRunner): Promise<boolean> {
  const args = ['list', 'table', 'inet', tableName(name)]
  const { code } = await run('nft', args, { timeoutMs, acceptedCodes: [0, 1] })
  return code === 0
}

/**
 * Takes the rules away; nothing to do when there are none. @throws commandMissing, commandFailed
 */
export async function removeFirewall(name: string, run: CommandRunner): Promise<void> {
  const table = tableName(name)
  const input = `table inet ${table} {}\ndelete table inet ${table}\n`
  await run('nft', ['-f', '-'], { timeoutMs, input })
}

/** The name servers that this host asks (resolv.conf(5)). */
export async function readResolvers(path = '/etc/resolv.conf'): Promise<string[]> {
  const text = await readFile(path, 'utf8').catch(() => '')
  const found = text.matchAll(/^\s*nameserver\s+([^\s%#;]+)/gm)
  return [...found].map(match => match[1] ?? '').filter(address => isIP(address) !== 0)
}

/**
 * The networks that this host is attached to, from `os.networkInterfaces()`. They change (DHCP):
 * compare and apply again.
 */
export function attachedNetworks(interfaces: NodeJS.Dict<NetworkInterfaceInfo[]>): string[] {
  const all = Object.values(interfaces).flatMap(list => list ?? [])
  const networks = all.map(at => at.cidr).filter(cidr => cidr !== null)
  return [...new Set(networks)].sort()
}
