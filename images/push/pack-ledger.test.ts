import { readdirSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { defaultLimits } from '../../base/limits.ts'
import { silentLog } from '../../base/log.ts'
import { temporaryFolder } from '../../test/support/temporary-folder.ts'
import { digestBytes } from '../format/packs.ts'
import { createPackLedger, type PushedPack } from './pack-ledger.ts'

const pushed = (name: string, repository = 'team/base'): PushedPack => ({
  repository,
  pack: { digest: digestBytes(Buffer.from(name)), sizeBytes: 300 },
  chunks: [100, 200].map(lengthBytes => ({
    ...{ digest: digestBytes(Buffer.from(`${name} ${lengthBytes}`)), lengthBytes },
  })),
})
const open = (folder: string, pushedPacks = 10) =>
  createPackLedger(folder, { limits: { ...defaultLimits, pushedPacks }, log: silentLog })
const all = (folder: string, host: string) => Array.fromAsync(open(folder).of(host))

test('packs are known after a restart, by registry, until they are forgotten', async () => {
  const folder = temporaryFolder()
  const ledger = open(folder)
  await ledger.add('one.test', pushed('a'))
  await ledger.add('one.test', pushed('a', 'team/other'))
  await ledger.add('two.test:5000', pushed('b'))
  expect(await all(folder, 'two.test:5000')).toMatchObject([pushed('b')])
  expect((await all(folder, 'one.test')).map(({ repository }) => repository).sort()).toEqual([
    'team/base',
    'team/other',
  ])
  await ledger.forget('one.test', 'team/base', pushed('a').pack)
  expect(await all(folder, 'one.test')).toMatchObject([pushed('a', 'team/other')])
  expect(await all(folder, 'three.test')).toEqual([])
})

test('the oldest are forgotten when there are too many', async () => {
  const folder = temporaryFolder()
  const ledger = open(folder, 2)
  for (const [at, name] of ['a', 'b', 'c'].entries()) {
    await ledger.add('one.test', pushed(name))
    for (const file of readdirSync(folder)) {
      const isNew = at === 0 || file.includes(pushed(name).pack.digest.slice('sha256:'.length))
      if (isNew) utimesSync(join(folder, file), at + 1, at + 1)
    }
  }
  expect(await all(folder, 'one.test')).toMatchObject([pushed('c'), pushed('b')])
})

test('a damaged record is dropped, and the others count', async () => {
  const folder = temporaryFolder()
  const ledger = open(folder)
  await ledger.add('one.test', pushed('a'))
  const [whole = ''] = readdirSync(folder)
  await ledger.add('one.test', pushed('b'))
  writeFileSync(join(folder, whole), '{"registry":"one.test"')
  writeFileSync(join(folder, 'torn.json.1.tmp'), 'x')
  expect(await all(folder, 'one.test')).toMatchObject([pushed('b')])
  expect(readdirSync(folder)).toHaveLength(1)
})
