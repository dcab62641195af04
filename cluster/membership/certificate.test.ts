import { execFileSync } from 'node:child_process'
import { X509Certificate } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { createManualClock } from '../../base/manual-clock.ts'
import { systemRandom } from '../../base/random.ts'
import { temporaryFolder } from '../../test/support/temporary-folder.ts'
import {
  backdatedMs,
  certificateLifeMs,
  createAuthorityPair,
  issueCertificate,
  newKeyPair,
} from './authority.ts'
import { checkCertificate, type HostIdentity, identityOf } from './identity.ts'

const fleetId = 'c7a2ef2e-8e6b-4f5e-9a38-9a6d5b0d2f10'
const identity: HostIdentity = {
  fleetId,
  name: 'rack1-host7.example',
  peerId: '12D3KooWKnDdG3iXw9eTFijk3EWSunZcFi54Zka4wmtqtt6rPxc8',
  hostId: '0b3a3f2e-1111-8222-a333-444455556666',
}
const clock = createManualClock(Date.now())
const components = { clock, random: systemRandom }
const pair = createAuthorityPair({ fleetId, generation: 1 }, components)

function issue(address: string, said: HostIdentity = identity) {
  const { publicKey } = newKeyPair()
  const subject = { identity: said, address, publicKey }
  return issueCertificate('hosts', pair.hosts, subject, components)
}

test('OpenSSL takes the certificates by its strictest rules, for servers and for clients', () => {
  const folder = temporaryFolder()
  const authority = join(folder, 'ca.pem')
  writeFileSync(authority, pair.hosts.certificate)
  for (const address of [
    '10.1.2.3',
    '::1',
    'fd00:1::7',
    '2001:db8:1:2:3:4:5:6',
    '::ffff:1.2.3.4',
  ]) {
    const path = join(folder, 'leaf.pem')
    writeFileSync(path, issue(address))
    for (const purpose of ['sslserver', 'sslclient']) {
      const said = execFileSync(
        'openssl',
        ['verify', '-x509_strict', '-purpose', purpose, '-verify_ip', address].concat([
          '-verify_hostname',
          identity.name,
          '-CAfile',
          authority,
          path,
        ]),
        { encoding: 'utf8' },
      )
      expect(said).toContain('OK')
    }
  }
})

test('a certificate says who the host is, and begins before clocks that are behind', () => {
  const certificate = new X509Certificate(issue('10.1.2.3'))
  expect(identityOf(certificate)).toEqual(identity)
  const wholeMs = Math.floor(clock.wallMs() / 1000) * 1000
  expect(certificate.validFromDate.getTime()).toBe(wholeMs - backdatedMs)
  expect(certificate.validToDate.getTime()).toBe(wholeMs + certificateLifeMs)
  expect(certificate.ca).toBe(false)
  expect(certificate.subjectAltName).toContain('IP Address:10.1.2.3')
  const authority = new X509Certificate(pair.hosts.certificate)
  const years = (authority.validToDate.getTime() - clock.wallMs()) / (365.25 * 24 * 3600 * 1000)
  expect(years).toBeGreaterThan(9.9)
})

test('a name that is longer than a common name may be is in the names in full', () => {
  const name = `${'a'.repeat(200)}.b`
  const certificate = new X509Certificate(issue('10.1.2.3', { ...identity, name }))
  expect(identityOf(certificate)?.name).toBe(name)
})

test('what no trusted authority signed, is not valid now, or of another fleet is refused', () => {
  const certificate = new X509Certificate(issue('10.1.2.3'))
  const trust = { fleetId, authorities: [pair.hosts.certificate], nowMs: clock.wallMs() }
  expect(checkCertificate(certificate, trust)).toEqual(identity)
  const refusal = (changed: Partial<typeof trust>) => () =>
    checkCertificate(certificate, { ...trust, ...changed })
  const other = createAuthorityPair({ fleetId, generation: 1 }, components)
  const early = clock.wallMs() - backdatedMs - 2_000
  const late = clock.wallMs() + certificateLifeMs + 2_000
  // An authority of the same name with another key, the fleet's other authority, itself.
  expect(refusal({ authorities: [other.hosts.certificate] })).toThrow('no authority')
  expect(refusal({ authorities: [pair.etcd.certificate] })).toThrow('no authority')
  expect(refusal({ authorities: [certificate.toString()] })).toThrow('no authority')
  expect(refusal({ nowMs: early })).toThrow('not valid yet')
  expect(refusal({ nowMs: late })).toThrow('expired')
  const otherFleet = 'c7a2ef2e-8e6b-4f5e-9a38-9a6d5b0d2f11'
  expect(refusal({ fleetId: otherFleet })).toThrow('another fleet')
  const authority = new X509Certificate(pair.hosts.certificate)
  expect(() => checkCertificate(authority, trust)).toThrow('authority')
})
