import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { silentLog } from '../../base/log.ts'
import { guestFolder } from '../../kvm/guest-folder.ts'
import { testRecord, testTracked, testUid } from '../../test/support/machine.ts'
import { temporaryFolder } from '../../test/support/temporary-folder.ts'
import { folderOwners, type GuestRecord, readRecords, writeRecord } from './record.ts'
import { saveRecord } from './tracked.ts'

/** A data folder with one guest's folder in it. */
function makeGuest() {
  const folder = temporaryFolder()
  const roots = { dataRoot: `${folder}/guests`, runRoot: `${folder}/run` }
  const guest = guestFolder(roots, testUid)
  mkdirSync(guest.guest, { recursive: true })
  return { folder, roots, guest }
}

const full: GuestRecord = testRecord({
  user: { userId: 210_000, groupId: 210_000 },
  imageDigest: 'sha256:1',
  forwards: [{ protocol: 'TCP', guestPort: 22, hostPort: 20_022, hostAddress: '127.0.0.1' }],
  startBegun: true,
})

test('a record is read as it was written', async () => {
  const { roots, guest } = makeGuest()
  await writeRecord(guest, full)
  expect(await readRecords(roots, silentLog)).toEqual([full])
})

test.each([
  ['half of it', (text: string) => text.slice(0, text.length / 2)],
  ['nothing', () => ''],
  ['something else', () => '"no"'],
  ['another version', (text: string) => text.replace('"version": 1', '"version": 2')],
  ["another guest's", (text: string) => text.replaceAll(testUid, testUid.replaceAll('0', '1'))],
  ['a user of root', (text: string) => text.replace('"userId": 210000', '"userId": 0')],
  ['a port that is none', (text: string) => text.replace('20022', '"all"')],
])('a damaged record is not taken for one: %s', async (_, damage) => {
  const { roots, guest } = makeGuest()
  await writeRecord(guest, full)
  writeFileSync(guest.record, damage(readFileSync(guest.record, 'utf8')))
  expect(await readRecords(roots, silentLog)).toEqual([])
  // Its user is not given to another guest all the same.
  expect(await folderOwners(roots)).toEqual([process.getuid?.()])
})

test('what is no guest is passed over, and no folder at all is no guest', async () => {
  const { roots } = makeGuest()
  mkdirSync(`${roots.dataRoot}/lost+found`)
  mkdirSync(`${roots.dataRoot}/${'-'.repeat(36)}`)
  expect(await readRecords(roots, silentLog)).toEqual([])
  expect(await readRecords({ ...roots, dataRoot: `${roots.dataRoot}/none` }, silentLog)).toEqual([])
})

test('of writes at the same moment, what was known last is on disk', async () => {
  const { folder, roots } = makeGuest()
  const tracked = testTracked(folder, testRecord())
  const saves = Array.from({ length: 20 }, (_, runs) => {
    tracked.record = testRecord({ runs })
    return saveRecord(tracked)
  })
  await Promise.all(saves)
  expect(await readRecords(roots, silentLog)).toMatchObject([{ runs: 19 }])
})
