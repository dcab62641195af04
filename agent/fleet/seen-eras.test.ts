import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { rememberEra, seenEra } from './seen-eras.ts'

let dataDir: string
beforeEach(() => {
  dataDir = mkdtempSync(join(tmpdir(), 'macfleet-eras-'))
})
afterEach(() => rmSync(dataDir, { recursive: true, force: true }))

const left = (fleetId: string, era: number) =>
  rememberEra(dataDir, { fleetId, era, revisionBase: era * 10, createdAt: 'x' })

test('how far a fleet had come is known after this host left it', async () => {
  expect(await seenEra(dataDir, 'a')).toEqual({ era: 0, revisionBase: 0 })
  await left('a', 2)
  await left('b', 1)
  await left('a', 3)
  expect(await seenEra(dataDir, 'a')).toEqual({ era: 3, revisionBase: 30 })
  expect(await seenEra(dataDir, 'b')).toEqual({ era: 1, revisionBase: 10 })
})

test('only the newest are kept, and garbage counts as nothing', async () => {
  for (let count = 0; count < 20; count++) await left(`f${count}`, 1)
  expect(await seenEra(dataDir, 'f3')).toEqual({ era: 0, revisionBase: 0 })
  expect(await seenEra(dataDir, 'f4')).toEqual({ era: 1, revisionBase: 10 })
  writeFileSync(join(dataDir, 'seen-eras.json'), '{"f4":')
  expect(await seenEra(dataDir, 'f4')).toEqual({ era: 0, revisionBase: 0 })
})
