import { readdirSync } from 'node:fs'
import { expect, onTestFinished, test, vi } from 'vitest'
import { systemClock } from '../../base/clock.ts'
import { defaultLimits } from '../../base/limits.ts'
import { approveMember, listMembers, removeMember } from '../../cluster/membership/members.ts'
import { listTokens } from '../../cluster/membership/tokens.ts'
import { componentsOf, makeFleet, makeMachine, tokenOf } from '../../test/support/fleet-hosts.ts'
import { openFleetFolder } from './fleet-folder.ts'
import { askPeer } from './peer-client.ts'
import { renewCertificates } from './renewal.ts'
import type { PeerRoutes } from './server.ts'

const whoAmI: PeerRoutes = (app, requireMember) => {
  app.get('/v1/who-am-i', async request => requireMember(request))
}

test('a host joins by a token, and each then asks the other as who it is', async () => {
  const fleet = makeFleet()
  fleet.routes.push(whoAmI)
  const first = await fleet.begin()
  const second = await fleet.join(await tokenOf(first), { rack: 'b' })
  expect(second.folder.known()).toMatchObject({
    fleet: { fleetId: first.folder.identity.fleetId, era: 1 },
    member: { rack: 'b', state: 'Approved' },
    signers: [first.machine.name],
  })
  expect(second.folder.authorityPairs()).toEqual([])
  await expect.poll(() => first.membership.members.all().length).toBe(2)
  const { name } = second.machine
  expect(await second.membership.ask(first.machine.name, { path: '/v1/who-am-i' })).toMatchObject({
    name,
  })
  expect(await first.membership.ask(name, { path: '/v1/who-am-i' })).toMatchObject({
    name: first.machine.name,
  })
  expect(await listTokens(fleet.store)).toMatchObject([{ usesLeft: 0 }])
})

test('a host with a token for many waits, learns nothing, and is in once approved', async () => {
  const fleet = makeFleet()
  const first = await fleet.begin()
  const { text } = await first.membership.createToken({ ttlMs: 60_000, uses: 2 })
  const machine = makeMachine()
  let waits = 0
  const joining = fleet.join(text, { ...machine, onWaiting: () => waits++ })
  await expect.poll(() => waits, { timeout: 5_000 }).toBe(1)
  expect(await openFleetFolder(machine)).toBeUndefined()
  await approveMember(fleet.store, machine.name)
  const second = await joining
  expect(second.folder.identity.name).toBe(machine.name)
  expect(waits).toBe(1)
})

test('a removed host is out at once, on connections that are open too', async () => {
  const fleet = makeFleet()
  fleet.routes.push(whoAmI)
  const first = await fleet.begin()
  const second = await fleet.join(await tokenOf(first))
  const ask = () => second.membership.ask(first.machine.name, { path: '/v1/who-am-i' })
  await expect.poll(ask).toMatchObject({ name: second.machine.name })
  await removeMember(fleet.store, second.machine.name)
  await expect.poll(() => second.wasRemoved()).toBe(true)
  await expect(ask()).rejects.toMatchObject({ code: 'notMember' })
  await expect(second.membership.renewal.now()).rejects.toMatchObject({ code: 'notMember' })
  // The other way round it is not trusted either.
  const back = first.membership.ask(second.machine.name, { path: '/v1/who-am-i' })
  await expect(back).rejects.toMatchObject({ code: 'notMember' })
  expect(await listMembers(fleet.store)).toHaveLength(1)
})

test('new certificates are for new keys, and the server shows them at once', async () => {
  const fleet = makeFleet()
  fleet.routes.push(whoAmI)
  const first = await fleet.begin()
  const second = await fleet.join(await tokenOf(first))
  for (const host of [first, second]) {
    const before = host.folder.certificate('hosts').fingerprint256
    await host.membership.renewal.now()
    expect(host.folder.certificate('hosts').fingerprint256).not.toBe(before)
    expect(host.tlsChanges).toContain('certificates')
  }
  const asked = await second.membership.ask(first.machine.name, { path: '/v1/who-am-i' })
  expect(asked).toMatchObject({ name: second.machine.name })
})

test('a host that can not sign passes joins and renewals on to one that can', async () => {
  const fleet = makeFleet()
  const first = await fleet.begin()
  const second = await fleet.join(await tokenOf(first))
  await expect.poll(() => first.membership.members.all().length).toBe(2)
  // A token of the second host names itself first.
  const third = await fleet.join(await tokenOf(second))
  expect(third.folder.known().members).toHaveLength(3)
  const known = third.folder.known()
  await third.folder.remember({
    members: known.members.filter(({ name }) => name !== first.machine.name),
  })
  await third.membership.renewal.now()
  await first.stop()
  const refused = fleet.join(await tokenOf(second), { patienceMs: 10 })
  await expect(refused).rejects.toMatchObject({ code: 'noSigner' })
  // Who asks may be anybody, and learns of no other host.
  const { host } = first.machine.address
  await expect(refused).rejects.not.toThrow(host)
  await expect(refused).rejects.not.toThrow(first.machine.name)
})

test('certificates come from the member that was asked, not from who has its address', async () => {
  const fleet = makeFleet()
  const first = await fleet.begin()
  const second = await fleet.join(await tokenOf(first))
  const third = await fleet.join(await tokenOf(first))
  const { members } = third.folder.known()
  const moved = members.map(member =>
    member.name === first.machine.name ? { ...member, address: second.machine.address } : member,
  )
  const others = (name: string) => name !== second.machine.name
  await third.membership.stop()
  await third.folder.remember({ members: moved.filter(({ name }) => others(name)) })
  const components = { ...componentsOf(systemClock), folder: third.folder, limits: defaultLimits }
  const { address, version } = third.machine
  const renewing = renewCertificates({ ...components, address: () => address, version })
  await expect(renewing).rejects.toMatchObject({ code: 'certificateRefused' })
})

test('who joins again keeps no keys of the membership before', async () => {
  const fleet = makeFleet()
  const first = await fleet.begin()
  const second = await fleet.join(await tokenOf(first))
  const { machine } = second
  await second.stop()
  await removeMember(fleet.store, machine.name)
  const again = await fleet.join(await tokenOf(first), { ...machine, rejoin: true })
  expect(again.folder.identity.hostId).not.toBe(second.folder.identity.hostId)
  expect(readdirSync(machine.dataDir)).toEqual(['fleet'])
})

test('who answers is verified, also where the environment turns that off', async () => {
  const [one, other] = [await makeFleet().begin(), await makeFleet().begin()]
  vi.stubEnv('NODE_TLS_REJECT_UNAUTHORIZED', '0')
  onTestFinished(() => void vi.unstubAllEnvs())
  const { address } = one.machine
  const ask = ({ folder }: typeof one) =>
    askPeer({ address, path: '/v1/hello', ca: folder.tls('hosts').ca }, { limits: defaultLimits })
  await expect(ask(other)).rejects.toMatchObject({ code: 'fleetUnreachable' })
  expect(await ask(one)).toMatchObject({ fleetId: one.folder.identity.fleetId })
})
