import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, onTestFinished, test, vi } from 'vitest'
import { defaultLimits } from '../../base/limits.ts'
import { silentLog } from '../../base/log.ts'
import { createManualClock } from '../../base/manual-clock.ts'
import { createSeededRandom } from '../../base/random.ts'
import { temporaryFolder } from '../../test/support/temporary-folder.ts'
import { fleetKey } from '../fleet/keys.ts'
import { createMemoryStore } from '../store/memory.ts'
import { readBackup } from './backup.ts'
import { snapshotKeyPath, startSnapshots } from './snapshots.ts'

const hourMs = 3_600_000

test('a voter keeps the newest copies of the store, which can be restored', async () => {
  const clock = createManualClock()
  const components = {
    clock,
    random: createSeededRandom(5),
    limits: defaultLimits,
    log: silentLog,
  }
  const store = createMemoryStore(components)
  const fleet = { fleetId: 'f', era: 1, revisionBase: 0, createdAt: '2026-01-01T00:00:00Z' }
  await store.transaction({ compare: [], operations: [{ put: fleetKey, value: fleet }] })
  const folder = join(temporaryFolder(), 'snapshots')
  let isVoter = false
  const start = () =>
    startSnapshots(
      {
        folder,
        version: '1',
        intervalMs: hourMs,
        keptMost: 3,
        scryptCost: 10,
        isVoter: () => isVoter,
      },
      { ...components, store },
    )
  const names = () => {
    try {
      return readdirSync(folder).filter(name => name.startsWith('snapshot-'))
    } catch {
      return []
    }
  }
  let snapshots = start()
  onTestFinished(() => snapshots.stop())
  await clock.advance(2 * hourMs)
  expect(names()).toEqual([])
  isVoter = true
  for (let count = 1; count <= 5; count++) {
    const before = names().at(-1)
    await clock.advance(hourMs)
    // The disk has a time of its own: the next look is set when the last one is done.
    await vi.waitFor(async () => {
      await clock.advance(60_000)
      expect(names().at(-1)).not.toBe(before)
      expect(names()).toHaveLength(Math.min(3, count))
    })
  }
  expect(statSync(folder).mode & 0o777).toBe(0o700)
  const newest = join(folder, names().at(-1) ?? '')
  const passphrase = readFileSync(snapshotKeyPath(folder), 'utf8').trim()
  expect((await readBackup(newest, passphrase, defaultLimits)).header.fleet).toEqual(fleet)

  // A daemon that starts anew does not take one at once, and takes away what a crash left.
  await snapshots.stop()
  writeFileSync(join(folder, 'snapshot-half.tmp'), 'x')
  const before = names().filter(name => !name.endsWith('.tmp'))
  snapshots = start()
  await vi.waitFor(() => expect(names()).toEqual(before))
})
