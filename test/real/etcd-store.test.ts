import { afterAll, beforeAll } from 'vitest'
import type { EtcdConnection } from '../../cluster/etcd/connection.ts'
import { storeCompliance } from '../../cluster/store/compliance.ts'
import { openEtcdStore } from '../../cluster/store/etcd.ts'
import { readRevision } from '../../cluster/store/etcd-range.ts'
import { startTestEtcd, type TestEtcd } from '../support/etcd.ts'

let etcd: TestEtcd
let connection: EtcdConnection

beforeAll(async () => {
  etcd = await startTestEtcd()
  connection = await etcd.connect()
})
afterAll(() => etcd.stop())

let opened = 0

// One etcd serves all tests: each store has keys of its own, and counts its revisions from one on.
storeCompliance('etcd', () => {
  let revisionBase = 0
  return {
    async open(components) {
      opened++
      revisionBase = 1 - (await readRevision(connection))
      return openEtcdStore({ connection, revisionBase, prefix: `${opened}/` }, components)
    },
    async reopen(components) {
      return openEtcdStore({ connection, revisionBase, prefix: `${opened}/` }, components)
    },
    remove: async () => {},
  }
})
