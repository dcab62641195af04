import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { silentLog } from '../../base/log.ts'
import { adoptDataFolder, checkDataFolder } from './data-folder.ts'

let dataDir: string
beforeEach(() => {
  dataDir = mkdtempSync(join(tmpdir(), 'macfleet-data-'))
})
afterEach(() => rmSync(dataDir, { recursive: true, force: true }))

const on = (machine: string) => {
  const machineIdFile = join(dataDir, `machine-${machine}`)
  writeFileSync(machineIdFile, `${machine.repeat(32)}\n`)
  return { dataDir, machineIdFile }
}
const check = (init: ReturnType<typeof on>) => checkDataFolder(init, { log: silentLog })

test('a data folder belongs to the first machine that used it', async () => {
  await (await check(on('a')))()
  await (await check(on('a')))()
  await expect(check(on('b'))).rejects.toThrow('was made on another machine')
})

test('it is bound only when the rest was found right', async () => {
  await check(on('a'))
  await (await check(on('b')))()
  await expect(check(on('a'))).rejects.toThrow('was made on another machine')
})

test('once adopted it belongs to the other machine', async () => {
  await (await check(on('a')))()
  await adoptDataFolder(on('b'))
  await (await check(on('b')))()
  await expect(check(on('a'))).rejects.toThrow('was made on another machine')
})

test('without a machine id a folder is bound to none, and a bound one is refused', async () => {
  const nowhere = { dataDir, machineIdFile: join(dataDir, 'none') }
  await (await check(nowhere))()
  await (await check(on('a')))()
  await expect(check(nowhere)).rejects.toThrow('makes one')
})
