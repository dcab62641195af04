import fc from 'fast-check'
import { expect, test } from 'vitest'
import { type DnsRecord, hostIn, recordsOf, serviceName } from './discovery-records.ts'
import { fleetTagOf } from './fleet-tag.ts'

const host = { address: '192.0.2.7', peerPort: 7480, fleetTag: fleetTagOf('one') }

test('what a host says is read, in any order and among other records', () => {
  const records = recordsOf('1a2b', host)
  const other: DnsRecord = { name: 'printer.local', type: 'A', data: '192.0.2.9' }
  expect(hostIn([other, ...records.toReversed()])).toEqual({ label: '1a2b', host })
  // As text comes from the wire.
  const text = records.map(record =>
    record.type === 'TXT' ? { ...record, data: [Buffer.from(`fleet=${host.fleetTag}`)] } : record,
  )
  expect(hostIn(text)?.host).toEqual(host)
})

test('it says nothing of the fleet but its tag, which says nothing of its id', () => {
  const said = JSON.stringify(recordsOf('1a2b', host))
  expect(said).not.toContain('one')
  expect(fleetTagOf('one')).toMatch(/^[0-9a-f]{16}$/)
  expect(fleetTagOf('two')).not.toBe(fleetTagOf('one'))
})

test('garbage is nobody', () => {
  const swapped = (type: string, data: unknown): DnsRecord[] =>
    recordsOf('x', host).map(record => (record.type === type ? { ...record, data } : record))
  for (const records of [
    swapped('SRV', { port: 0, target: 'x.local' }),
    swapped('SRV', { port: 70_000, target: 'x.local' }),
    swapped('SRV', null),
    swapped('A', '224.0.0.1'),
    swapped('A', '0.0.0.0'),
    swapped('A', 'example.org'),
    swapped('TXT', ['fleet=not-a-tag']),
    swapped('TXT', undefined),
    [...recordsOf('x', host), ...Array<DnsRecord>(80).fill({ name: 'y', type: 'A' })],
    [],
  ]) {
    expect(hostIn(records)).toBeUndefined()
  }
  const record = fc.record({
    name: fc.constantFrom(serviceName, `x.${serviceName}`, 'x.local', 'y'),
    type: fc.constantFrom('PTR', 'SRV', 'TXT', 'A'),
    data: fc.anything(),
  })
  fc.assert(
    fc.property(fc.array(record), records => {
      hostIn(records)
    }),
  )
})
