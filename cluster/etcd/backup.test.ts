import { readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { isFailure, MacfleetError } from '../../base/errors.ts'
import { defaultLimits } from '../../base/limits.ts'
import { silentLog } from '../../base/log.ts'
import { createManualClock } from '../../base/manual-clock.ts'
import { createSeededRandom } from '../../base/random.ts'
import { temporaryFolder } from '../../test/support/temporary-folder.ts'
import { fleetKey, hostLeaseKey, memberKey, tokenPrefix } from '../fleet/keys.ts'
import { createMemoryStore } from '../store/memory.ts'
import type { Store } from '../store/store.ts'
import { makeBackup, readBackup, writeBackup } from './backup.ts'
import { copiedKey } from './copy.ts'
import { recordAfterRestore, restoreInto } from './restore.ts'

const clock = createManualClock()
const random = createSeededRandom(7)
const components = { clock, random, limits: defaultLimits, log: silentLog }
const passphrase = 'correct horse'
const record = { fleetId: 'f', era: 3, revisionBase: 500, createdAt: '2026-01-01T00:00:00Z' }
const secrets = { 'etcd.key': 'the key of the authority' }

/** A fleet with members, machines, a token, and somebody who is there now. */
async function fleet(machines = 500): Promise<Store> {
  const store = createMemoryStore(components)
  const put = (key: string, value: object, lease?: string) =>
    store.transaction({
      compare: [],
      operations: [{ put: key, value: { ...value }, ...(lease && { lease }) }],
    })
  await put(fleetKey, record)
  await put(memberKey('h1'), { name: 'h1' })
  await put(`${tokenPrefix}t1`, { secretDigest: 'x' })
  await put(hostLeaseKey('h1'), { hostId: 'x' }, await store.grantLease(1000))
  for (let index = 0; index < machines; index++) {
    await put(`objects/vm/n${index}`, {
      name: `ä ${index}`,
      text: random.bytes(300).toString('hex'),
    })
  }
  return store
}

async function backUp(store: Store): Promise<string> {
  const path = join(temporaryFolder(), 'backup')
  const bytes = makeBackup(
    { version: '1.2.3', secrets, passphrase, scryptCost: 10 },
    { store, clock, random },
  )
  await writeBackup(path, bytes)
  return path
}

const refusalOf = async (path: string, secret = passphrase): Promise<string> => {
  try {
    await readBackup(path, secret, defaultLimits)
    return 'read'
  } catch (error) {
    return isFailure(error, 'backupRefused') ? error.message : String(error)
  }
}

test('what was backed up is restored, in a new era', async () => {
  const store = await fleet()
  const path = await backUp(store)
  expect(statSync(path).mode & 0o777).toBe(0o600)
  expect(readFileSync(path).includes('authority')).toBe(false)
  const backup = await readBackup(path, passphrase, defaultLimits)
  expect(backup.header).toMatchObject({ fleet: record, secrets, keys: 502, version: '1.2.3' })

  const next = recordAfterRestore(backup, { era: 5, revisionBase: 0 }, clock)
  expect(next).toMatchObject({ fleetId: 'f', era: 6, recoveringSince: expect.any(String) })
  expect(next.revisionBase).toBeGreaterThan(backup.header.revision + 2 ** 39)
  const again = recordAfterRestore(backup, next, clock)
  expect(again.era).toBe(7)
  expect(again.revisionBase).toBeGreaterThan(next.revisionBase + 2 ** 39)

  const restored = createMemoryStore(components)
  await restoreInto(restored, backup, next, defaultLimits)
  const of = async (from: Store) =>
    (await from.list('objects/')).entries.map(({ key, value }) => [key, value])
  expect(await of(restored)).toEqual(await of(store))
  expect((await restored.get(fleetKey)).entry?.value).toEqual(next)
  expect((await restored.get(copiedKey)).entry?.value).toMatchObject({ keys: 501 })
  expect((await restored.list('fleet/')).entries.map(({ key }) => key).sort()).toEqual(
    [copiedKey, fleetKey, memberKey('h1')].sort(),
  )
  await expect(restoreInto(restored, backup, next, defaultLimits)).rejects.toMatchObject({
    code: 'storeNotEmpty',
  })
})

test('a single host that is in no fleet has no such backup', async () => {
  const store = createMemoryStore(components)
  await expect(backUp(store)).rejects.toThrow(MacfleetError)
})

test('a file that is not whole is refused with what is wrong with it', async () => {
  const path = await backUp(await fleet(50))
  const bytes = readFileSync(path)
  expect(await refusalOf(path)).toBe('read')
  expect(await refusalOf(path, 'incorrect horse')).toMatch(/passphrase is another one/)
  expect(await refusalOf(join(path, 'missing'))).toMatch(/can not be read|ENOTDIR/)
  for (const length of [0, 10, 40, 60, 1000, bytes.length - 1]) {
    writeFileSync(path, bytes)
    truncateSync(path, length)
    expect([length, await refusalOf(path)]).toEqual([
      length,
      expect.stringMatching(length < 50 ? /no backup/ : /cut off or changed/),
    ])
  }
  for (const at of [50, 55, 100, bytes.length - 3]) {
    const copy = Buffer.from(bytes)
    copy[at] = (copy[at] ?? 0) ^ 0x10
    writeFileSync(path, copy)
    expect([at, await refusalOf(path)]).toEqual([at, expect.stringMatching(/cut off or changed/)])
  }
  writeFileSync(path, 'apiVersion: v1\n'.repeat(100))
  expect(await refusalOf(path)).toMatch(/no backup of macfleet/)
})

test('a file that would unpack to more than a store holds is refused', async () => {
  const path = await backUp(await fleet(50))
  const limits = { ...defaultLimits, storeBytes: 1000 }
  await expect(readBackup(path, passphrase, limits)).rejects.toMatchObject({
    code: 'backupRefused',
  })
})
