import { expect, onTestFinished, test } from 'vitest'
import { systemClock } from '../../base/clock.ts'
import { defaultLimits } from '../../base/limits.ts'
import { silentLog } from '../../base/log.ts'
import { systemRandom } from '../../base/random.ts'
import { openEtcdStore } from '../../cluster/store/etcd.ts'
import { makeEtcdHosts, within } from '../support/etcd-hosts.ts'

const components = {
  clock: systemClock,
  random: systemRandom,
  limits: defaultLimits,
  log: silentLog,
}

test('an etcd whose quota is used up by history takes writes again', async () => {
  const fleet = await makeEtcdHosts(1, 24 * 1024 * 1024)
  const { admin, connection, hosts } = fleet
  const [host] = hosts
  await host?.begin()
  const store = openEtcdStore({ connection, revisionBase: 0 }, components)
  onTestFinished(() => store.close())
  const value = 'x'.repeat(1024 * 1024)
  const write = () =>
    store.transaction({ compare: [], operations: [{ put: 'objects/one', value }] })
  const fill = async (): Promise<string> => {
    for (let count = 0; count < 60; count++) {
      try {
        await write()
      } catch (error) {
        return String(error)
      }
    }
    return 'it never fills'
  }
  expect(await fill()).not.toBe('it never fills')
  expect(await admin.alarms()).toMatchObject([{ kind: 'NOSPACE' }])
  const endpoint = host?.clientUrl ?? ''
  const before = (await admin.status(endpoint)).databaseBytes

  fleet.plan()
  await within(10, 'there is room again', async () => (await admin.alarms()).length === 0)
  await write()
  expect((await admin.status(endpoint)).databaseBytes).toBeLessThan(before / 2)
  expect((await store.get('objects/one')).entry?.value).toBe(value)
})
