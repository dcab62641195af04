import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as delay } from 'node:timers/promises'
import { expect, onTestFinished, test } from 'vitest'
import { systemClock } from '../../base/clock.ts'
import { defaultLimits } from '../../base/limits.ts'
import { silentLog } from '../../base/log.ts'
import { systemRandom } from '../../base/random.ts'
import { makeBackup, readBackup, writeBackup } from '../../cluster/etcd/backup.ts'
import { copiedKey } from '../../cluster/etcd/copy.ts'
import { recordAfterRestore, restoreInto } from '../../cluster/etcd/restore.ts'
import { fleetKey } from '../../cluster/fleet/keys.ts'
import type { FleetRecord } from '../../cluster/fleet/member.ts'
import { openEtcdStore } from '../../cluster/store/etcd.ts'
import { openLevelStore } from '../../cluster/store/level.ts'
import { readSuccessor } from '../../cluster/store/level-identity.ts'
import type { Store } from '../../cluster/store/store.ts'
import { type EtcdHost, makeEtcdHosts } from '../support/etcd-hosts.ts'
import type { MigrationChildInit } from '../support/migration-child.ts'
import { temporaryFolder } from '../support/temporary-folder.ts'

const components = {
  clock: systemClock,
  random: systemRandom,
  limits: defaultLimits,
  log: silentLog,
}
const keys = 1500

async function fillLevel(folder: string): Promise<number> {
  const store = await openLevelStore({ folder }, components)
  const writes = Array.from({ length: keys }, (_, index) =>
    store.transaction({
      compare: [],
      operations: [{ put: `objects/${index}`, value: { index, text: 'ä'.repeat(index % 700) } }],
    }),
  )
  await Promise.all(writes)
  const revision = await store.revision()
  await store.close()
  return revision
}

const objectsOf = async (store: Store) =>
  (await store.list('objects/')).entries.map(({ key, value }) => [key, value])

/** @param killAfterMs counted from when it begins to copy; undefined lets it finish */
async function migrate(init: MigrationChildInit, killAfterMs: number | undefined): Promise<number> {
  const program = join(import.meta.dirname, '../support/migration-child.ts')
  const child = spawn(process.execPath, [program, JSON.stringify(init)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  onTestFinished(() => void child.kill('SIGKILL'))
  const ended = once(child, 'exit')
  let beganMs = systemClock.monotonicMs()
  let tookMs = 0
  createInterface({ input: child.stdout }).on('line', line => {
    if (line === 'done') tookMs = systemClock.monotonicMs() - beganMs
    if (line !== 'begins') return
    beganMs = systemClock.monotonicMs()
    if (killAfterMs !== undefined) void delay(killAfterMs).then(() => child.kill('SIGKILL'))
  })
  const [code] = await ended
  expect(code === 0 || killAfterMs !== undefined).toBe(true)
  return tookMs
}

const storeOf = (connection: Parameters<typeof openEtcdStore>[0]['connection'], base: number) => {
  const store = openEtcdStore({ connection, revisionBase: base }, components)
  onTestFinished(() => store.close())
  return store
}

test('a host becomes a fleet, killed on its way; its backup makes another one', async () => {
  const { hosts } = await makeEtcdHosts(2)
  const [host, other] = hosts as [EtcdHost, EtcdHost]
  const levelFolder = join(temporaryFolder(), 'store')
  const levelRevision = await fillLevel(levelFolder)
  const record: FleetRecord = {
    fleetId: 'f',
    era: 1,
    revisionBase: levelRevision,
    createdAt: '2026-01-01T00:00:00Z',
  }
  const begin = async (): Promise<MigrationChildInit> => {
    const { clusterId } = await host.begin()
    return { levelFolder, clusterId, endpoint: host.clientUrl, tls: host.tls, record }
  }
  const clusters = new Set<string>()
  let finished: MigrationChildInit | undefined
  for (const killAfterMs of [5, 60, 150, 300, undefined]) {
    const init = await begin()
    clusters.add(init.clusterId)
    await migrate(init, killAfterMs)
    const successor = await readSuccessor(levelFolder)
    if (successor !== undefined) {
      expect(successor).toEqual({ fleetId: 'f', clusterId: init.clusterId })
      finished = init
      break
    }
    const level = await openLevelStore({ folder: levelFolder }, components)
    expect(await level.revision()).toBe(levelRevision)
    expect(await objectsOf(level)).toHaveLength(keys)
    await level.close()
  }
  if (finished === undefined) throw new Error('it never finished')
  expect(clusters.size).toBeGreaterThan(1)
  await expect(openLevelStore({ folder: levelFolder }, components)).rejects.toMatchObject({
    code: 'storeMoved',
  })
  const store = storeOf(await host.connect([host.clientUrl]), record.revisionBase)
  const objects = await objectsOf(store)
  expect(objects).toHaveLength(keys)
  expect(await store.revision()).toBeGreaterThan(levelRevision)
  expect((await store.get(copiedKey)).entry?.value).toMatchObject({ keys })

  const passphrase = 'correct horse battery staple'
  const path = join(temporaryFolder(), 'backup')
  const secrets = { 'etcd.key': 'x' }
  const init = { version: '1', secrets, passphrase, scryptCost: 10 }
  await writeBackup(path, makeBackup(init, { ...components, store }))
  await store.transaction({ compare: [], operations: [{ put: 'objects/later', value: {} }] })
  const toldLast = await store.revision()

  await other.begin()
  const backup = await readBackup(path, passphrase, defaultLimits)
  const next = recordAfterRestore(
    backup,
    { era: 1, revisionBase: record.revisionBase },
    systemClock,
  )
  const restored = storeOf(await other.connect([other.clientUrl]), next.revisionBase)
  await restoreInto(restored, backup, next, defaultLimits)
  expect(await objectsOf(restored)).toEqual(objects)
  expect((await restored.get(fleetKey)).entry?.value).toEqual(next)
  expect(await restored.revision()).toBeGreaterThan(toldLast)
  const watch = restored.watch('', { afterRevision: toldLast, signal: AbortSignal.timeout(5000) })
  await expect(watch[Symbol.asyncIterator]().next()).rejects.toMatchObject({
    code: 'revisionCompacted',
  })
})
