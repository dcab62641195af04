import { createHash } from 'node:crypto'
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import fc from 'fast-check'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { defaultLimits } from '../../base/limits.ts'
import { silentLog } from '../../base/log.ts'
import { createManualClock } from '../../base/manual-clock.ts'
import { createSeededRandom } from '../../base/random.ts'
import { collect, put, remove } from './compliance-tools.ts'
import { openLevelStore } from './level.ts'
import { repairLevelStore } from './level-repair.ts'
import type { Listing, Store } from './store.ts'

const base = mkdtempSync(join(tmpdir(), 'macfleet-store-damage-'))
const whole = join(base, 'whole')
const random = createSeededRandom(7)
const stores = new Set<Store>()
let expected: Listing
let copies = 0

async function open(folder: string): Promise<Store> {
  const limits = { ...defaultLimits, storeHistory: 50 }
  const clock = createManualClock()
  const store = await openLevelStore({ folder }, { clock, random, log: silentLog, limits })
  stores.add(store)
  return store
}

/** A store with table files, and a log in which every revision is still kept. */
beforeAll(async () => {
  const value = () => random.bytes(1_000).toString('hex')
  for (const [round, writes] of [200, 200, 30].entries()) {
    const store = await open(whole)
    const lease = await store.grantLease(60_000)
    for (let written = 0; written < writes; written += 10) {
      const keys = Array.from({ length: 9 }, (_, key) => `key/${(written + key) % 40}`)
      await Promise.all(keys.map(key => put(store, key, value())))
      await put(store, `round/${round}/${written}`, value(), lease)
    }
    await remove(store, 'key/3')
    expected = await store.list('')
    await store.close()
  }
})
afterEach(async () => {
  for (const store of stores) await store.close()
  stores.clear()
})
afterAll(() => rmSync(base, { recursive: true, force: true }))

function copy(): string {
  const folder = join(base, `copy-${copies++}`)
  cpSync(whole, folder, { recursive: true })
  return folder
}

/** The files that matter: LOCK is empty, LOG is LevelDB's diary. */
function filesOf(folder: string): string[] {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter(item => item.isFile() && !/^(LOCK|LOG)/.test(item.name))
    .map(item => join(item.parentPath, item.name))
    .sort()
}

function find(folder: string, pattern: RegExp): string {
  const found = filesOf(folder).findLast(path => pattern.test(basename(path)))
  if (found === undefined) throw new Error(`no file is like ${pattern}`)
  return found
}

function fingerprint(folder: string): string {
  const hash = createHash('sha256')
  for (const path of filesOf(folder))
    hash.update(path.slice(folder.length)).update(readFileSync(path))
  return hash.digest('hex')
}

function flip(path: string, at: number, count = 1): void {
  const bytes = readFileSync(path)
  const start = Math.floor(at * bytes.length)
  for (let index = start; index < Math.min(bytes.length, start + count); index++) {
    bytes.writeUInt8(bytes.readUInt8(index) ^ 0x5a, index)
  }
  writeFileSync(path, bytes)
}

/** All of them: one alone may hold nothing but what was written again since. */
function tables(folder: string, damage: (path: string) => void): void {
  const found = filesOf(folder).filter(path => path.endsWith('.ldb'))
  expect(found.length).toBeGreaterThan(0)
  for (const path of found) damage(path)
}

/** The footer of a table; without it nothing in it is found. */
function flipEnd(path: string): void {
  flip(path, 1 - 8 / readFileSync(path).length, 8)
}

const half = (path: string) => truncateSync(path, Math.floor(readFileSync(path).length / 2))

/** name, what is done to a folder, whether a repair finds anything at all */
const damages: [string, (folder: string) => void, 'all' | 'some' | 'nothing'][] = [
  ['CURRENT missing', folder => rmSync(find(folder, /^CURRENT/)), 'all'],
  ['CURRENT garbled', folder => flip(find(folder, /^CURRENT/), 0, 99), 'all'],
  ['CURRENT empty', folder => truncateSync(find(folder, /^CURRENT/)), 'all'],
  ['MANIFEST missing', folder => rmSync(find(folder, /^MANIFEST/)), 'all'],
  ['MANIFEST empty', folder => truncateSync(find(folder, /^MANIFEST/)), 'all'],
  ['MANIFEST truncated', folder => half(find(folder, /^MANIFEST/)), 'all'],
  ['MANIFEST garbled', folder => flip(find(folder, /^MANIFEST/), 0.3, 30), 'all'],
  ['tables missing', folder => tables(folder, path => rmSync(path)), 'some'],
  ['tables truncated', folder => tables(folder, half), 'some'],
  ['tables garbled in its data', folder => tables(folder, path => flip(path, 0.2, 1e5)), 'some'],
  ['tables garbled at its end', folder => tables(folder, flipEnd), 'some'],
  ['the log missing', folder => rmSync(find(folder, /log$/)), 'some'],
  ['the log empty', folder => truncateSync(find(folder, /log$/)), 'some'],
  ['the log truncated', folder => half(find(folder, /log$/)), 'some'],
  ['the log garbled at its start', folder => flip(find(folder, /log$/), 0.001, 20), 'some'],
  ['the log garbled in the middle', folder => flip(find(folder, /log$/), 0.5, 20), 'some'],
  ['the log garbled at its end', folder => flip(find(folder, /log$/), 0.999, 20), 'some'],
  ['the database gone', folder => rmSync(join(folder, 'level'), { recursive: true }), 'nothing'],
  ['the database emptied', empty, 'nothing'],
  ['store.json missing', folder => rmSync(join(folder, 'store.json')), 'all'],
  ['store.json garbled', folder => truncateSync(join(folder, 'store.json'), 9), 'all'],
  [
    'another store.json',
    folder => writeFileSync(join(folder, 'store.json'), '{"storeId":"x"}'),
    'all',
  ],
  ['acknowledged missing', folder => rmSync(join(folder, 'acknowledged')), 'all'],
  ['acknowledged garbled', folder => truncateSync(join(folder, 'acknowledged'), 5), 'all'],
]

function empty(folder: string): void {
  rmSync(join(folder, 'level'), { recursive: true })
  mkdirSync(join(folder, 'level'))
}

describe('a damaged level store', () => {
  it.each(damages)('is refused as it is, then repaired: %s', async (_, damage, readable) => {
    const folder = copy()
    damage(folder)
    const before = fingerprint(folder)
    await expect(open(folder)).rejects.toMatchObject({ code: 'storeCorrupt' })
    await expect(open(folder)).rejects.toMatchObject({ code: 'storeCorrupt' })
    expect(fingerprint(folder)).toBe(before)
    const repair = repairLevelStore(folder, { random })
    if (readable === 'nothing') {
      await expect(repair).rejects.toMatchObject({ code: 'storeCorrupt' })
      return
    }
    const report = await repair
    expect(fingerprint(report.backupFolder)).toBe(before)
    const store = await open(folder)
    const { entries, revision } = await store.list('')
    expect(revision).toBe(report.revision)
    expect(revision).toBeGreaterThan(expected.revision)
    expect(entries).toHaveLength(report.entries)
    if (readable === 'all') expect(entries).toEqual(expected.entries)
    const old = collect(store, '', expected.revision, revision)
    await expect(old).rejects.toMatchObject({ code: 'revisionCompacted' })
    expect(await put(store, 'key/1', 'new')).toBe(revision + 1)
    await store.close()
    await (await open(folder)).close()
  })

  it('never opens as anything but what was written, whatever byte is changed', async () => {
    const files = filesOf(whole).map(path => path.slice(whole.length))
    const anywhere = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true })
    const property = async (file: string, at: number, count: number) => {
      const folder = copy()
      flip(join(folder, file), at, count)
      try {
        const store = await open(folder)
        expect(await store.list('')).toEqual(expected)
        await store.close()
      } catch (error) {
        expect(error).toMatchObject({ code: 'storeCorrupt' })
      } finally {
        rmSync(folder, { recursive: true })
      }
    }
    const count = fc.constantFrom(1, 1, 16, 5_000)
    await fc.assert(fc.asyncProperty(fc.constantFrom(...files), anywhere, count, property), {
      numRuns: 50,
    })
  })
})
