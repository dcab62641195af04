import { createHash } from 'node:crypto'
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { systemClock } from '../../base/clock.ts'
import { isFailure } from '../../base/errors.ts'
import { defaultLimits } from '../../base/limits.ts'
import { silentLog } from '../../base/log.ts'
import { systemRandom } from '../../base/random.ts'
import { createEtcdAdmin, type EtcdAdmin } from '../../cluster/etcd/admin.ts'
import { createEtcdConnection, type EtcdConnection } from '../../cluster/etcd/connection.ts'
import { startTestEtcd, type TestEtcd } from '../support/etcd.ts'
import { temporaryFolder } from '../support/temporary-folder.ts'

let etcd: TestEtcd
let connection: EtcdConnection
let admin: EtcdAdmin
const signal = new AbortController().signal

beforeAll(async () => {
  etcd = await startTestEtcd()
  connection = await etcd.connect()
  admin = createEtcdAdmin(connection)
})
afterAll(() => etcd.stop())

const codeOf = (work: Promise<unknown>): Promise<string> =>
  work.then(
    () => 'none',
    error => (isFailure(error, 'etcdRefused') ? String(error) : error.code),
  )

/** Tries as long as etcd answers with `code`, which must end within 15 s. */
async function insist(code: string, work: () => Promise<unknown>): Promise<void> {
  for (let round = 0; ; round++) {
    const answer = await codeOf(work())
    if (answer === 'none') return
    expect([answer, round < 150]).toEqual([code, true])
    await delay(100)
  }
}

const quickly = { repeatable: true, timeoutMs: 1_000 }

const first = (): string => etcd.endpoints[0] ?? ''

describe('a connection to etcd', () => {
  it('is refused by us when the member shows another address or CA, and says so', async () => {
    const other = await startTestEtcd()
    const components = {
      clock: systemClock,
      random: systemRandom,
      log: silentLog,
      limits: defaultLimits,
    }
    try {
      const attempts = [
        { endpoint: first().replace('127.0.0.1', 'localhost'), tls: etcd.tls, says: /altnames/ },
        { endpoint: first(), tls: other.tls, says: /certificate/ },
      ]
      for (const { endpoint, tls, says } of attempts) {
        const wrong = await createEtcdConnection({ endpoints: [endpoint], tls }, components)
        const asking = wrong.call('Cluster.MemberList', { linearizable: true }, quickly)
        await expect(asking).rejects.toMatchObject({ code: 'unavailable' })
        expect(wrong.availability().lastError).toMatch(says)
        wrong.close()
      }
    } finally {
      await other.stop()
    }
  })

  it('is refused by etcd without a certificate of its CA', async () => {
    const plain = first().replace('https:', 'http:')
    const components = {
      clock: systemClock,
      random: systemRandom,
      log: silentLog,
      limits: defaultLimits,
    }
    const nobody = await createEtcdConnection({ endpoints: [plain] }, components)
    const asking = nobody.call('Cluster.MemberList', { linearizable: true }, quickly)
    await expect(asking).rejects.toMatchObject({ code: 'unavailable' })
    nobody.close()
  })
})

describe('commands to etcd', () => {
  it('add a learner, promote it when it is in sync, let it lead and remove it', async () => {
    const [leader] = await admin.members()
    const joining = await etcd.prepareMember()
    const learner = await admin.addLearner(joining.peerUrl)
    expect(learner).toMatchObject({ isLearner: true, peerUrls: [joining.peerUrl], name: '' })
    expect(await codeOf(admin.addLearner('https://127.0.0.1:1'))).toBe('etcdLearnerBusy')
    expect(await codeOf(admin.addLearner(joining.peerUrl))).toBe('etcdMemberExists')
    expect(await codeOf(admin.promote(learner.id))).toBe('etcdLearnerBehind')
    expect(await codeOf(admin.promote('42'))).toBe('etcdMemberUnknown')
    const starting = joining.start()
    await insist('etcdLearnerBehind', () => admin.promote(learner.id))
    await starting
    expect((await admin.members()).filter(({ isLearner }) => !isLearner)).toHaveLength(2)
    await admin.moveLeader(first(), learner.id)
    const status = await admin.status(joining.clientUrl)
    expect(status).toMatchObject({ leaderId: learner.id, memberId: learner.id, isLearner: false })
    await admin.moveLeader(joining.clientUrl, leader?.id ?? '')
    // etcd removes nobody before all have been connected for 5 s.
    await insist('etcdUnhealthy', () => admin.remove(learner.id))
    expect(await codeOf(admin.remove(learner.id))).toBe('etcdMemberUnknown')
    await joining.kill()
  })

  it('write a snapshot that is whole, or nothing', async () => {
    const path = join(temporaryFolder(), 'snapshot')
    writeFileSync(`${path}.tmp`, 'of an earlier attempt')
    const { bytes } = await admin.snapshot(first(), path, signal)
    const content = readFileSync(path)
    expect(content).toHaveLength(bytes)
    const digest = createHash('sha256').update(content.subarray(0, -32)).digest()
    expect(digest.equals(content.subarray(-32))).toBe(true)
    expect(statSync(path).mode & 0o777).toBe(0o600)
    expect(existsSync(`${path}.tmp`)).toBe(false)
    const nowhere = admin.snapshot('https://127.0.0.1:1', `${path}2`, signal)
    await expect(nowhere).rejects.toMatchObject({ code: 'unavailable' })
    const aborted = admin.snapshot(first(), `${path}2`, AbortSignal.abort(new Error('stop')))
    await expect(aborted).rejects.toThrow('stop')
    expect([existsSync(`${path}2`), existsSync(`${path}2.tmp`)]).toEqual([false, false])
  })

  it('compact, defragment, and tell of alarms', async () => {
    const put = { key: Buffer.from('a'), value: Buffer.alloc(100_000) }
    const request = { compare: [], success: [{ put }], failure: [] }
    for (let round = 0; round < 20; round++) {
      await connection.call('KV.Txn', request, { repeatable: true, timeoutMs: 5_000 })
    }
    const { revision } = await admin.status(first())
    await admin.compact(revision)
    await admin.compact(revision)
    await expect(admin.compact(revision + 1_000)).rejects.toMatchObject({ code: 'etcdRefused' })
    const before = await admin.status(first())
    await admin.defragment(first())
    const after = await admin.status(first())
    expect(after.databaseBytes).toBeLessThan(before.databaseBytes / 2)
    expect(await admin.alarms()).toEqual([])
  })
})
