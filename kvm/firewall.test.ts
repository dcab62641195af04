import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { attachedNetworks, firewallRules, readResolvers } from './firewall.ts'
import { defaultUserRange } from './guest-user.ts'

const init = {
  name: 'test',
  users: defaultUserRange,
  resolvers: ['192.0.2.53', '::1'],
  closedNetworks: ['192.0.2.0/24', 'fd00::/64'],
}

describe('the firewall', () => {
  test('is one transaction that replaces the table', () => {
    expect(firewallRules(init)).toMatchSnapshot()
  })

  test('takes no names or networks that are none', () => {
    expect(() => firewallRules({ ...init, name: 'x; flush ruleset' })).toThrow('not a name')
    expect(() => firewallRules({ ...init, closedNetworks: ['1.2.3.4/8; drop'] })).toThrow('network')
    expect(firewallRules({ ...init, resolvers: ['} drop'] })).not.toContain('} drop')
  })

  test('knows the name servers of this host', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'macfleet-resolv-'))
    try {
      const path = join(folder, 'resolv.conf')
      const text =
        '# nameserver 1.1.1.1\nnameserver 192.0.2.53\nnameserver fe80::1%eth0\nsearch x\n'
      await writeFile(path, `${text}nameserver nonsense\n`)
      expect(await readResolvers(path)).toEqual(['192.0.2.53', 'fe80::1'])
      expect(await readResolvers(join(folder, 'missing'))).toEqual([])
    } finally {
      await rm(folder, { recursive: true })
    }
  })

  test('knows the networks of this host', () => {
    const entry = { netmask: '', mac: '', internal: false, family: 'IPv4' as const }
    const networks = attachedNetworks({
      eth0: [{ ...entry, address: '192.0.2.2', cidr: '192.0.2.2/24' }],
      eth1: [{ ...entry, address: '192.0.2.2', cidr: '192.0.2.2/24' }],
      bad: [{ ...entry, address: '192.0.2.3', cidr: null }],
    })
    expect(networks).toEqual(['192.0.2.2/24'])
  })
})
