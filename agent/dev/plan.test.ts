import { expect, test } from 'vitest'
import {
  guestUsers,
  hardwareAddress,
  hostAddress,
  namespaceName,
  networkName,
  networkNumbers,
  outsideLink,
  parseNetworkName,
} from './plan.ts'

const plan = { owner: { pid: 4_194_304, startTicks: 123_456_789 }, number: 249 }

test('the name of a network says whose it is, and so do those of its namespaces', () => {
  expect(parseNetworkName(networkName(plan))).toEqual(plan)
  expect(parseNetworkName(namespaceName(plan, 'mac-200'))).toEqual(plan)
  for (const other of ['macfleet-etcd-1', 'macfleet-1-2', 'macfleet-1-2-3/..', 'xmacfleet-1-2-3']) {
    expect(parseNetworkName(other), other).toBeUndefined()
  }
})

test('links have names that the kernel takes, and hosts addresses of their own', () => {
  for (const number of networkNumbers) {
    expect(number).toBeLessThan(256)
    expect(outsideLink({ ...plan, number }).length).toBeLessThan(16)
  }
  expect(hostAddress(plan, 200, 200)).toBe('10.249.200.200')
  expect(() => hostAddress(plan, 1, 201)).toThrow()
  expect(hardwareAddress(plan, 1, 16)).toBe('02:6d:66:f9:01:10')
})

test('no two hosts share a user of their guests', () => {
  const last = guestUsers(plan, 200)
  expect(last.last).toBeLessThan(2 ** 31)
  expect(guestUsers(plan, 1).last + 1).toBe(guestUsers(plan, 2).first)
  expect(guestUsers({ ...plan, number: 248 }, 200).last + 1).toBe(guestUsers(plan, 1).first)
})
