import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { defaultLimits } from '../../base/limits.ts'
import { silentLog } from '../../base/log.ts'
import { createManualClock } from '../../base/manual-clock.ts'
import { systemRandom } from '../../base/random.ts'
import { put } from './compliance-tools.ts'
import { openLevelStore } from './level.ts'
import { openDatabase } from './level-database.ts'
import { recordKey, seal } from './level-format.ts'
import { createJournal } from './level-journal.ts'
import { openFolder } from './level-open.ts'
import { createState } from './state.ts'
import { decideTransaction, prepareTransaction } from './transaction.ts'

let folder: string

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'macfleet-store-open-'))
})
afterEach(() => rmSync(folder, { recursive: true, force: true, maxRetries: 5 }))

function open() {
  const clock = createManualClock()
  const limits = { ...defaultLimits, storeHistory: 5 }
  return openLevelStore({ folder }, { clock, random: systemRandom, log: silentLog, limits })
}

async function create(): Promise<void> {
  const store = await open()
  const lease = await store.grantLease(1_000)
  for (let value = 0; value < 9; value++) await put(store, `key/${value % 3}`, value, lease)
  await store.close()
}

describe('a level store that was killed', () => {
  it('while LevelDB was made is made anew', async () => {
    mkdirSync(join(folder, 'level'))
    for (const name of ['LOCK', 'LOG', '000001.dbtmp', '000003.log']) {
      writeFileSync(join(folder, 'level', name), '')
    }
    writeFileSync(join(folder, 'level', 'MANIFEST-000001'), 'torn')
    const store = await open()
    expect(await put(store, 'a', 1)).toBe(2)
    await store.close()
  })

  it('before it was complete is completed', async () => {
    await (await open()).close()
    for (const name of ['store.json', 'acknowledged']) rmSync(join(folder, name))
    const store = await open()
    expect(await put(store, 'a', 1)).toBe(2)
    await store.close()
    await (await open()).close()
  })

  it('while it was checked leaves nothing behind', async () => {
    await create()
    const left = join(folder, 'check-0123')
    mkdirSync(left)
    writeFileSync(join(left, 'CURRENT'), '')
    await (await open()).close()
    expect(existsSync(left)).toBe(false)
  })
})

describe('a level store from which LevelDB lost a record', () => {
  const lost = [
    recordKey.meta,
    recordKey.entry('key/1'),
    recordKey.history(8),
    recordKey.history(10),
  ]
  it.each(lost)('is refused: %s', async key => {
    await create()
    const database = await openDatabase(join(folder, 'level'), false)
    await database.del(key)
    await database.close()
    await expect(open()).rejects.toMatchObject({ code: 'storeCorrupt' })
  })

  it('is refused: a lease that an entry names', async () => {
    await create()
    const database = await openDatabase(join(folder, 'level'), false)
    await database.clear({ gte: 'l!', lt: 'l"' })
    await database.close()
    await expect(open()).rejects.toMatchObject({ code: 'storeCorrupt' })
  })

  it('is refused: the last write to an entry', async () => {
    await create()
    const database = await openDatabase(join(folder, 'level'), false)
    const key = recordKey.entry('key/1')
    const old = { key: 'key/1', value: 4, createRevision: 3, modRevision: 6 }
    await database.put(key, seal(key, old))
    await database.close()
    await expect(open()).rejects.toMatchObject({ code: 'storeCorrupt' })
  })
})

describe('a journal', () => {
  it('finds out after a failure whether the write is there', async () => {
    const opened = await openFolder(folder, systemRandom)
    const journal = createJournal(opened, defaultLimits)
    const operations = [{ put: 'a', value: 1 }]
    const prepared = prepareTransaction({ compare: [], operations }, defaultLimits)
    const { change } = decideTransaction(createState(), prepared, defaultLimits)
    if (change === undefined) throw new Error('a put changes something')
    // The batch is written, then the mark can't be.
    await opened.mark.close()
    await expect(journal.write([change])).rejects.toMatchObject({ code: 'unavailable' })
    expect(await journal.recover()).toBe(true)
    // The same again, after a write that did not reach LevelDB.
    await expect(journal.write([])).rejects.toMatchObject({ code: 'unavailable' })
    expect(await journal.recover()).toBe(true)
    await expect(journal.close()).rejects.toThrow()
    const store = await open()
    expect((await store.list('')).entries).toEqual([change.events[0]?.entry])
    await store.close()
  })
})
