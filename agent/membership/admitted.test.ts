import { expect, test } from 'vitest'
import { makeMachine } from '../../test/support/fleet-hosts.ts'
import { readAdmitted } from './admitted.ts'

function answer(etcdEndpoints: readonly string[]) {
  const { name, address, version } = makeMachine()
  const text = { hostId: 'h', machineId: 'm', peerId: 'p', joinedAt: '' }
  const member = { name, address, version, state: 'Approved', ...text }
  const authority = { generation: 1, etcd: '', hosts: '', createdAt: '' }
  return {
    state: 'Approved',
    certificates: { etcd: '', hosts: '' },
    generation: 1,
    fleet: { fleetId: 'f', era: 1, revisionBase: 0, createdAt: '' },
    authorities: { trusted: [authority], signing: 1 },
    member,
    members: [member],
    signers: [name],
    etcdEndpoints,
  }
}

test('where etcd is, is an address and a port behind TLS', () => {
  expect(readAdmitted(answer(['https://10.0.0.1:7482', 'https://[fd00::1]:7482']))).toBeDefined()
  const odd = ['http://10.0.0.1:7482', 'https://10.0.0.1', 'https://x@10.0.0.1:1', 'nonsense']
  for (const url of odd) expect(readAdmitted(answer([url]))).toBeUndefined()
})
