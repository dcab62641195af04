import { readFileSync } from 'node:fs'
import { systemClock } from '../../base/clock.ts'
import { defaultLimits } from '../../base/limits.ts'
import { silentLog } from '../../base/log.ts'
import { systemRandom } from '../../base/random.ts'
import { createEtcdConnection } from '../../cluster/etcd/connection.ts'
import { migrateToEtcd } from '../../cluster/etcd/migrate.ts'
import type { FleetRecord } from '../../cluster/fleet/member.ts'
import { openEtcdStore } from '../../cluster/store/etcd.ts'
import { openLevelStore } from '../../cluster/store/level.ts'

/** What the test that starts this program, and kills it, says in its first argument. */
export interface MigrationChildInit {
  levelFolder: string
  clusterId: string
  endpoint: string
  tls: { ca: string; certificate: string; key: string }
  record: FleetRecord
}

const { levelFolder, clusterId, endpoint, tls, record }: MigrationChildInit = JSON.parse(
  process.argv[2] ?? '',
)
const limits = { ...defaultLimits, transactionOperations: 16 }
const components = { clock: systemClock, random: systemRandom, log: silentLog, limits }
const texts = {
  certificateAuthority: readFileSync(tls.ca, 'utf8'),
  certificate: readFileSync(tls.certificate, 'utf8'),
  key: readFileSync(tls.key, 'utf8'),
}
const connection = await createEtcdConnection(
  { endpoints: [endpoint], tls: () => texts },
  components,
)
const from = await openLevelStore({ folder: levelFolder }, components)
const to = openEtcdStore({ connection, revisionBase: record.revisionBase }, components)
console.log('begins')
await migrateToEtcd({ levelFolder, clusterId, record, limits }, { from, to, log: silentLog })
console.log('done')
await to.close()
await from.close()
connection.close()
