import { appendFileSync, readFileSync, rmSync } from 'node:fs'
import { dirname } from 'node:path'
import { expect, test } from 'vitest'
import { isAlive } from '../../base/process-identity.ts'
import type { EtcdAdmin } from '../../cluster/etcd/admin.ts'
import { type EtcdHost, type EtcdHosts, makeEtcdHosts, within } from '../support/etcd-hosts.ts'

/**
 * The names of the hosts that vote, when every member does, answers, and knows that it does: one
 * that was just promoted and does not know it yet gives nobody its vote (etcd before 3.5), so that
 * the loss of the leader in that moment would be the loss of the quorum.
 */
async function voters(admin: EtcdAdmin): Promise<string> {
  const members = await admin.members()
  for (const { clientUrls, isLearner } of members) {
    const status = await admin.status(clientUrls[0] ?? '')
    expect(isLearner || status.isLearner || status.leaderId === undefined).toBe(false)
  }
  return members
    .map(({ name }) => name)
    .sort()
    .join()
}

const at = ({ hosts }: EtcdHosts, index: number): EtcdHost => {
  const host = hosts[index]
  if (host === undefined) throw new Error(`there is no host ${index}`)
  return host
}

const idOf = async (admin: EtcdAdmin, name: string): Promise<string | undefined> =>
  (await admin.members()).find(member => member.name === name)?.id

test('voters come to be, come back, and are replaced', async () => {
  const fleet = await makeEtcdHosts(4)
  const { admin, hosts } = fleet
  const [first, second, third, fourth] = [at(fleet, 0), at(fleet, 1), at(fleet, 2), at(fleet, 3)]
  await first.begin()
  await Promise.all([first, second, third].map(host => host.startDaemon()))
  let dead = new Set([fourth.name])
  fleet.plan({
    hosts: () =>
      hosts.map(({ name, peerUrl }) => ({
        name,
        peerUrl,
        alive: !dead.has(name),
        cordoned: false,
      })),
  })
  await within(40, 'three voters', async () => (await voters(admin)) === 'h0,h1,h2')

  const before = await second.running()
  const memberBefore = await idOf(admin, 'h1')
  await second.killEtcd()
  await within(20, 'the killed member is back', async () => {
    const now = await second.running()
    return now !== undefined && now.pid !== before?.pid && (await voters(admin)) === 'h0,h1,h2'
  })
  expect(await idOf(admin, 'h1')).toBe(memberBefore)

  // Under a process that runs: the worst moment, because it goes on and seems well.
  const lost = await idOf(admin, 'h2')
  rmSync(dirname(third.folder.data), { recursive: true })
  await within(40, 'another member in its place', async () => {
    return (await voters(admin)) === 'h0,h1,h2' && (await idOf(admin, 'h2')) !== lost
  })

  await second.powerOff()
  dead = new Set(['h1'])
  await fourth.startDaemon()
  await within(40, 'another host in its place', async () => {
    return (await voters(admin)) === 'h0,h2,h3'
  })
  await second.powerOn()
  await within(20, 'its data is set aside', async () => !(await second.folder.hasData()))
  await within(20, 'and nothing runs', async () => (await second.running()) === undefined)

  await Promise.all(hosts.map(host => host.powerOff()))
  await Promise.all(hosts.map(host => host.powerOn()))
  await within(40, 'all come back', async () => (await voters(admin)) === 'h0,h2,h3')

  const running = await first.running()
  await first.stopDaemon()
  await first.startDaemon()
  await within(20, 'the new daemon has looked', () => first.looks() > 1)
  expect(await first.running()).toEqual(running)
  expect(running && isAlive(running)).toBe(true)

  // Another CA in the same file: etcd reads it when it starts, so all are started anew, in turn.
  const voting = [first, third, fourth]
  const identities = () => Promise.all(voting.map(host => host.running()))
  const old = await identities()
  for (const { tls } of voting) appendFileSync(tls.ca, readFileSync(tls.ca))
  await within(40, 'all run with the new CA', async () => {
    const now = await identities()
    const areNew = now.every((one, index) => one !== undefined && one.pid !== old[index]?.pid)
    return areNew && (await voters(admin)) === 'h0,h2,h3'
  })
  const starts = (await identities()).map(one => one?.startTicks ?? 0).sort((a, b) => a - b)
  const [one = 0, two = 0, three = 0] = starts
  // Hundredths of a second, a quarter of what the hosts of this test wait for each other.
  expect(Math.min(two - one, three - two)).toBeGreaterThan(50)
})
