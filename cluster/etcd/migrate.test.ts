import { join } from 'node:path'
import { expect, test } from 'vitest'
import { defaultLimits } from '../../base/limits.ts'
import { silentLog } from '../../base/log.ts'
import { createManualClock } from '../../base/manual-clock.ts'
import { createSeededRandom } from '../../base/random.ts'
import { temporaryFolder } from '../../test/support/temporary-folder.ts'
import { fleetKey, hostLeaseKey, leaderKey } from '../fleet/keys.ts'
import { openLevelStore } from '../store/level.ts'
import { readSuccessor } from '../store/level-identity.ts'
import { createMemoryStore } from '../store/memory.ts'
import type { Store } from '../store/store.ts'
import { copiedKey } from './copy.ts'
import { migrateToEtcd } from './migrate.ts'

const limits = { ...defaultLimits, transactionOperations: 8, transactionBytes: 4000 }
const components = {
  clock: createManualClock(),
  random: createSeededRandom(11),
  limits: defaultLimits,
  log: silentLog,
}

async function put(store: Store, key: string, text: string, lease?: string): Promise<void> {
  await store.transaction({
    compare: [],
    operations: [{ put: key, value: { text }, ...(lease && { lease }) }],
  })
}

/** A host's store with small and large values, and with what hangs on leases. */
async function fill(folder: string): Promise<void> {
  const store = await openLevelStore({ folder }, components)
  for (let index = 0; index < 40; index++) {
    await put(store, `objects/${index}`, 'x'.repeat((index * 97) % 1500))
  }
  const lease = await store.grantLease(60_000)
  await put(store, leaderKey, 'it', lease)
  await put(store, hostLeaseKey('h1'), 'it', lease)
  await put(store, 'other/leased', 'it', lease)
  await store.close()
}

async function migrate(folder: string, to: Store): Promise<void> {
  const from = await openLevelStore({ folder }, components)
  const revisionBase = (await from.revision()) + 10
  const record = { fleetId: 'f', era: 1, revisionBase, createdAt: '2026-01-01T00:00:00Z' }
  try {
    await migrateToEtcd(
      { levelFolder: folder, clusterId: '77', record, limits },
      { from, to, log: silentLog },
    )
  } finally {
    await from.close()
  }
}

const pairsOf = async (store: Store) =>
  (await store.list('objects/')).entries.map(({ key, value }) => [key, value])

/** A store that is gone from the call number `last` on, before or after it was carried out. */
function failing(store: Store, last: number, isDone: boolean): { store: Store; calls(): number } {
  let calls = 0
  const attempt = async <Result>(work: () => Promise<Result>): Promise<Result> => {
    calls++
    if (calls > last) throw new Error('killed')
    if (calls < last) return work()
    if (isDone) await work()
    throw new Error('killed')
  }
  return {
    calls: () => calls,
    store: {
      ...store,
      list: (prefix, options) => attempt(() => store.list(prefix, options)),
      transaction: transaction => attempt(() => store.transaction(transaction)),
    },
  }
}

test('everything that lasts is moved, and level is closed for good', async () => {
  const folder = join(temporaryFolder(), 'store')
  await fill(folder)
  const to = createMemoryStore(components)
  await migrate(folder, to)
  expect(await pairsOf(to)).toHaveLength(40)
  const { entries } = await to.list('')
  expect(entries.map(({ key }) => key).filter(key => !key.startsWith('objects/'))).toEqual([
    copiedKey,
    fleetKey,
  ])
  expect(await readSuccessor(folder)).toEqual({ fleetId: 'f', clusterId: '77' })
  await expect(openLevelStore({ folder }, components)).rejects.toMatchObject({
    code: 'storeMoved',
  })
})

test('killed at any step, level is the truth, and it can be tried again', async () => {
  const folder = join(temporaryFolder(), 'store')
  await fill(folder)
  const whole = failing(createMemoryStore(components), Number.MAX_SAFE_INTEGER, true)
  const copy = join(temporaryFolder(), 'store')
  await fill(copy)
  await migrate(copy, whole.store)
  expect(whole.calls()).toBeGreaterThan(10)
  for (let last = 1; last <= whole.calls(); last++) {
    for (const isDone of [false, true]) {
      const to = createMemoryStore(components)
      await expect(migrate(folder, failing(to, last, isDone).store)).rejects.toThrow('killed')
      expect(await readSuccessor(folder)).toBeUndefined()
      // What the next try would find, if nobody emptied it.
      const { entries } = await to.list('')
      if (entries.length > 0) {
        await expect(migrate(folder, to)).rejects.toMatchObject({ code: 'storeNotEmpty' })
      }
    }
  }
  const again = createMemoryStore(components)
  await migrate(folder, again)
  expect(await pairsOf(again)).toEqual(await pairsOf(whole.store))
})

test('a copy that differs is not taken for the truth', async () => {
  const folder = join(temporaryFolder(), 'store')
  await fill(folder)
  const to = createMemoryStore(components)
  const forgetful: Store = {
    ...to,
    transaction: ({ compare, operations }) =>
      to.transaction({
        compare,
        operations: operations.length > 2 ? operations.slice(1) : operations,
      }),
  }
  await expect(migrate(folder, forgetful)).rejects.toMatchObject({ code: 'storeCopyDiffers' })
  expect(await readSuccessor(folder)).toBeUndefined()
})

test('writes that were not stopped are noticed', async () => {
  const folder = join(temporaryFolder(), 'store')
  await fill(folder)
  const from = await openLevelStore({ folder }, components)
  const to = createMemoryStore(components)
  const record = { fleetId: 'f', era: 1, revisionBase: 1000, createdAt: '2026-01-01T00:00:00Z' }
  const careless: Store = {
    ...to,
    async transaction(transaction) {
      await put(from, 'objects/late', 'x')
      return to.transaction(transaction)
    },
  }
  const init = { levelFolder: folder, clusterId: '77', record, limits }
  await expect(migrateToEtcd(init, { from, to: careless, log: silentLog })).rejects.toThrow(
    'nobody',
  )
  expect(await readSuccessor(folder)).toBeUndefined()
  await from.close()
})
