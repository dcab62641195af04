import { spawn } from 'node:child_process'
import { X509Certificate } from 'node:crypto'
import { cpSync, existsSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { Agent } from 'node:https'
import { join } from 'node:path'
import { createSecureContext } from 'node:tls'
import { fileURLToPath } from 'node:url'
import { describe, expect, onTestFinished, test } from 'vitest'
import { createFleet } from '../../agent/membership/create-fleet.ts'
import { adoptFleetFolder, openFleetFolder } from '../../agent/membership/fleet-folder.ts'
import { ensureCertificates, lifeLeft } from '../../agent/membership/renewal.ts'
import type { PeerRoutes } from '../../agent/membership/server.ts'
import { systemClock } from '../../base/clock.ts'
import { defaultLimits } from '../../base/limits.ts'
import {
  type AuthorityPair,
  createAuthorityPair,
  issueCertificate,
  newKeyPair,
  privateKeyText,
} from '../../cluster/membership/authority.ts'
import type { HostIdentity } from '../../cluster/membership/identity.ts'
import { listMembers, removeMember } from '../../cluster/membership/members.ts'
import { type RenewRequest, signRequest } from '../../cluster/membership/request.ts'
import { decodeToken, encodeToken } from '../../cluster/membership/token-text.ts'
import { listTokens } from '../../cluster/membership/tokens.ts'
import {
  componentsOf,
  type FleetHost,
  makeFleet,
  makeMachine,
  skewedClock,
  type TestFleet,
  tokenOf,
} from '../support/fleet-hosts.ts'
import { askRaw } from '../support/raw-request.ts'

const hourMs = 3_600_000
const joinChild = fileURLToPath(new URL('../support/join-child.ts', import.meta.url))
const whoAmI: PeerRoutes = (app, requireMember) => {
  app.get('/v1/who-am-i', async request => ({ name: requireMember(request).name }))
}

async function fleetOf(count: number): Promise<{ fleet: TestFleet; hosts: FleetHost[] }> {
  const fleet = makeFleet()
  fleet.routes.push(whoAmI)
  const hosts = [await fleet.begin()]
  while (hosts.length < count) hosts.push(await fleet.join(await tokenOf(first(hosts))))
  for (const host of hosts) {
    await expect.poll(() => host.membership.members.all().length).toBe(count)
  }
  return { fleet, hosts }
}

function first(hosts: readonly FleetHost[]): FleetHost {
  const [host] = hosts
  if (host === undefined) throw new Error('there is none')
  return host
}

function issued(pair: AuthorityPair, identity: HostIdentity, clock = systemClock) {
  const { privateKey, publicKey } = newKeyPair()
  const subject = { identity, address: '127.0.0.1', publicKey }
  const cert = issueCertificate('hosts', pair.hosts, subject, componentsOf(clock))
  return { key: privateKeyText(privateKey), cert }
}

describe('who is not a member', () => {
  test('gets nowhere with forged, expired, foreign or borrowed certificates', async () => {
    const { hosts } = await fleetOf(2)
    const [one, two] = hosts as [FleetHost, FleetHost]
    const { identity } = one.folder
    const [genuine] = one.folder.authorityPairs() as [AuthorityPair]
    const refusal = async (shown: { key?: string; cert?: string }, path = '/v1/who-am-i') => {
      const body = path === '/v1/who-am-i' ? undefined : {}
      return (await askRaw(one, { path, ...(body ? { body } : {}), ...shown })).body.code
    }
    // All that members may do is refused to who shows nothing.
    for (const path of ['keys', 'rotate', 'join', 'renew'].map(each => `/v1/signing/${each}`)) {
      expect(await refusal({}, path)).toBe('certificateRefused')
    }
    expect(await refusal({})).toBe('certificateRefused')
    const { fleetId } = identity
    const forger = createAuthorityPair({ fleetId, generation: 1 }, componentsOf(systemClock))
    expect(await refusal(issued(forger, identity))).toBe('certificateRefused')
    const past = skewedClock(-25 * hourMs)
    expect(await refusal(issued(genuine, identity, past))).toBe('certificateRefused')
    const future = skewedClock(hourMs)
    expect(await refusal(issued(genuine, identity, future))).toBe('certificateRefused')
    // Signed by the authority, but by no decision: an id or a peer id that no member has.
    const stranger = { ...identity, peerId: two.folder.identity.peerId }
    expect(await refusal(issued(genuine, stranger))).toBe('notMember')
    const former = { ...identity, hostId: two.folder.identity.hostId }
    expect(await refusal(issued(genuine, former))).toBe('notMember')
    // etcd's authority signs for etcd only.
    const wrongKind = { key: one.folder.tls('etcd').key, cert: one.folder.tls('etcd').cert }
    expect(await refusal(wrongKind)).toBe('certificateRefused')
    // The certificate of one host is worth nothing without its key.
    const borrowed = { key: two.folder.tls('hosts').key, cert: one.folder.tls('hosts').cert }
    expect(() => createSecureContext(borrowed)).toThrow('key values mismatch')
    const { fleet: other, hosts: others } = await fleetOf(1)
    expect(await refusal(first(others).folder.tls('hosts'))).toBe('certificateRefused')
    expect(await listMembers(other.store)).toHaveLength(1)
    const { key, cert } = two.folder.tls('hosts')
    expect(await askRaw(one, { path: '/v1/who-am-i', key, cert })).toMatchObject({
      status: 200,
      body: { name: two.machine.name },
    })
  })

  test('gets no certificates for the peer id of another host', async () => {
    const { hosts } = await fleetOf(2)
    const [one, two] = hosts as [FleetHost, FleetHost]
    const { nonce } = (await askRaw(one, { path: '/v1/hello' })).body
    const { fleetId, name, hostId } = one.folder.identity
    const content = {
      version: '1',
      atMs: Date.now(),
      nonce: String(nonce),
      name,
      hostId,
      machineId: one.folder.machineId,
      address: one.machine.address,
    }
    const keys = { etcd: newKeyPair(), hosts: newKeyPair() }
    const own = signRequest<RenewRequest>(fleetId, content, { peer: two.folder.peer, ...keys })
    const ask = async (body: unknown) => (await askRaw(one, { path: '/v1/renew', body })).body.code
    expect(await ask({ ...own, peerId: one.folder.peer.peerId })).toBe('joinRefused')
    expect(await ask(own)).toBe('notMember')
    // What was heard on another day, or by another host, is no answer to what this host said.
    const good = signRequest<RenewRequest>(fleetId, content, { peer: one.folder.peer, ...keys })
    expect(await ask({ ...good, nonce: 'A'.repeat(64) })).toBe('joinRefused')
    const heard = (await askRaw(two, { path: '/v1/renew', body: good })).body.code
    expect(heard).toBe('joinRefused')
    expect((await askRaw(one, { path: '/v1/renew', body: good })).status).toBe(200)
  })

  test('gets in nowhere by the token of another fleet; it finds its own on one LAN', async () => {
    const { fleet: wrong, hosts } = await fleetOf(1)
    const { fleet: other, hosts: others } = await fleetOf(1)
    const here = first(hosts).machine.address
    const there = first(others).machine.address
    const foreign = await tokenOf(first(others))
    async function* discover() {
      yield { address: here.host, peerPort: here.peerPort, fleetId: 'x' }
      yield { address: there.host, peerPort: there.peerPort, fleetId: 'y' }
    }
    // Both fleets announce themselves, the wrong one first.
    const parts = decodeToken(await tokenOf(first(others)))
    const text = encodeToken({ ...parts, addresses: [] })
    const joined = await other.join(text, { discover })
    expect(joined.folder.identity.fleetId).toBe(first(others).folder.identity.fleetId)
    await first(others).stop()
    const late = other.join(foreign, { discover, patienceMs: 200 })
    await expect(late).rejects.toMatchObject({ code: 'tokenOfOtherFleet' })
    expect(await listMembers(wrong.store)).toHaveLength(1)
  })

  test('may fail so often and no more', async () => {
    const limits = { ...defaultLimits, joinAttempts: 3 }
    const fleet = makeFleet(limits)
    const host = await fleet.begin()
    const text = await tokenOf(host)
    const id = text.split('.')[1] ?? ''
    await fleet.store.transaction({ compare: [], operations: [{ delete: `fleet/tokens/${id}` }] })
    const codes = []
    for (let attempt = 0; attempt < 5; attempt++) {
      const failed = fleet.join(text, { patienceMs: 1 }).catch(error => error.code)
      codes.push(await failed)
    }
    expect(codes).toEqual([...Array(3).fill('tokenRefused'), ...Array(2).fill('joinAttempts')])
  })
})

test('a connection that is open when its host is removed is ended', async () => {
  const { fleet, hosts } = await fleetOf(2)
  const [one, two] = hosts as [FleetHost, FleetHost]
  const agent = new Agent({ keepAlive: true, maxSockets: 1 })
  onTestFinished(() => agent.destroy())
  const { key, cert } = two.folder.tls('hosts')
  const ask = () => askRaw(one, { path: '/v1/who-am-i', key, cert, agent })
  expect(await ask()).toMatchObject({ status: 200 })
  const [socket] = Object.values(agent.freeSockets).flat()
  await removeMember(fleet.store, two.machine.name)
  await expect.poll(() => socket?.destroyed, { timeout: 2_000 }).toBe(true)
  // A new one resumes the TLS session of before, and is asked again.
  expect(await ask()).toMatchObject({ status: 403, body: { code: 'notMember' } })
})

test('a clock that is two hours off is told, with both clocks', async () => {
  const { fleet, hosts } = await fleetOf(1)
  for (const byMs of [2 * hourMs, -2 * hourMs]) {
    const clock = skewedClock(byMs)
    const here = new Date(clock.wallMs()).toISOString().slice(0, 15)
    const there = new Date().toISOString().slice(0, 15)
    const refused = fleet.join(await tokenOf(first(hosts)), { clock }).catch(error => error)
    expect(await refused).toMatchObject({ code: 'clockSkew' })
    expect((await refused).message).toContain(here)
    expect((await refused).message).toContain(there)
  }
  expect(await listMembers(fleet.store)).toHaveLength(1)
})

test('hosts whose certificates ended while they were off come back by themselves', async () => {
  const { fleet, hosts } = await fleetOf(2)
  for (const { folder, stop } of hosts) {
    await stop()
    const { identity } = folder
    const [pair] = first(hosts).folder.authorityPairs() as [AuthorityPair]
    const { key, cert } = issued(pair, identity, skewedClock(-26 * hourMs))
    const { privateKey, publicKey } = newKeyPair()
    const subject = { identity, address: '127.0.0.1', publicKey }
    const past = componentsOf(skewedClock(-26 * hourMs))
    const certificate = issueCertificate('etcd', pair.etcd, subject, past)
    const etcd = { key: privateKeyText(privateKey), certificate }
    await folder.saveCertificates({ etcd, hosts: { key, certificate: cert } })
  }
  for (const { machine } of hosts) {
    const folder = await openFleetFolder(machine)
    if (folder === undefined) throw new Error('it was in a fleet')
    expect(lifeLeft(folder, systemClock)).toBeLessThan(0)
    const components = { ...componentsOf(systemClock), limits: defaultLimits, version: '1' }
    const renewing = { ...components, folder, address: () => machine.address }
    await ensureCertificates(renewing, AbortSignal.timeout(5_000))
    expect(lifeLeft(folder, systemClock)).toBeGreaterThan(0.9)
    await fleet.start(machine, folder)
  }
})

describe('a host that is killed while it joins', () => {
  const run = (file: string, killWhen: (() => Promise<boolean>) | undefined) =>
    new Promise<number | null>((resolve, reject) => {
      const child = spawn(process.execPath, [joinChild, file], {
        stdio: ['ignore', 'ignore', 'inherit'],
      })
      child.on('error', reject)
      child.on('exit', resolve)
      onTestFinished(() => {
        child.kill('SIGKILL')
      })
      const look = async (): Promise<void> => {
        while (child.exitCode === null && killWhen !== undefined) {
          if (await killWhen()) child.kill('SIGKILL')
          if (child.killed) return
          await new Promise(setImmediate)
        }
      }
      look().catch(reject)
    })

  test('joins with the same use of its token, however far it came', async () => {
    const { fleet, hosts } = await fleetOf(1)
    const machine = makeMachine()
    const token = await tokenOf(first(hosts))
    const file = `${machine.machineIdFile}.json`
    writeFileSync(file, JSON.stringify({ ...machine, token }))
    const joining = join(machine.dataDir, 'fleet.joining')
    const there = (name: string) => async () => existsSync(join(joining, name))
    const recorded = async () => (await listMembers(fleet.store)).length === 2
    const killed = []
    for (const moment of [there('peer.key'), recorded, there('etcd.pem')]) {
      killed.push(await run(file, moment))
      if (existsSync(join(machine.dataDir, 'fleet'))) break
      for (const name of ['etcd.pem', 'hosts.pem']) rmSync(join(joining, name), { force: true })
    }
    expect(killed.filter(code => code === null).length).toBeGreaterThan(0)
    if (!existsSync(join(machine.dataDir, 'fleet'))) await run(file, undefined)
    const folder = await openFleetFolder(machine)
    if (folder === undefined) throw new Error('it did not join')
    await fleet.start(machine, folder)
    expect(await listMembers(fleet.store)).toHaveLength(2)
    expect(await listTokens(fleet.store)).toMatchObject([{ usesLeft: 0 }])
    expect(statSync(join(machine.dataDir, 'fleet')).mode & 0o777).toBe(0o700)
    expect(statSync(join(machine.dataDir, 'fleet', 'peer.key')).mode & 0o777).toBe(0o600)
  })
})

describe('the fleet folder', () => {
  test('starts nothing on another machine, until it was adopted', async () => {
    const machine = makeMachine()
    await createFleet({ ...machine, revisionBase: 0 }, componentsOf(systemClock))
    const second = makeMachine()
    cpSync(machine.dataDir, second.dataDir, { recursive: true })
    await expect(openFleetFolder(second)).rejects.toMatchObject({ code: 'adoptNeeded' })
    await adoptFleetFolder(second)
    expect((await openFleetFolder(second))?.identity.name).toBe(machine.name)
    await expect(
      createFleet({ ...second, revisionBase: 0 }, componentsOf(systemClock)),
    ).rejects.toMatchObject({ code: 'alreadyInFleet' })
  })

  test('says which file is missing or damaged, and changes nothing', async () => {
    const files = ['fleet.json', 'peer.key', 'etcd.pem', 'hosts.pem', 'authorities.json']
    for (const name of files) {
      for (const content of [undefined, '', '{}', 'garbage']) {
        if (name === 'authorities.json' && content === undefined) continue
        const machine = makeMachine()
        await createFleet({ ...machine, revisionBase: 0 }, componentsOf(systemClock))
        const path = join(machine.dataDir, 'fleet', name)
        if (content === undefined) rmSync(path)
        else writeFileSync(path, content)
        const opening = openFleetFolder(machine)
        await expect(opening).rejects.toMatchObject({ code: 'fleetFolderDamaged' })
        await expect(opening).rejects.toThrow(name)
        expect(existsSync(path)).toBe(content !== undefined)
      }
    }
  })
})

describe('a change of authorities', () => {
  const generations = ({ folder }: FleetHost) => [
    folder.known().authorities.trusted.map(({ generation }) => generation),
    folder.generation(),
    folder.authorityPairs().map(({ generation }) => generation),
  ]

  test('cuts nobody off, and ends with the old ones worth nothing', async () => {
    const { fleet, hosts } = await fleetOf(4)
    const [one, two, three] = hosts as [FleetHost, FleetHost, FleetHost, FleetHost]
    fleet.voters.add(two.machine.name)
    two.membership.authorities.refresh()
    await expect.poll(() => two.folder.authorityPairs().length, { timeout: 5_000 }).toBe(1)
    // Only who is to have a voter gets the keys.
    const { key, cert } = three.folder.tls('hosts')
    const before = { key, cert }
    const asked = await askRaw(one, { path: '/v1/signing/keys', body: {}, ...before })
    expect(asked.body.code).toBe('authorityKeysRefused')
    const oldToken = await tokenOf(one)
    const failures: unknown[] = []
    let done = false
    const traffic = hosts.map(async from => {
      while (!done) {
        for (const to of hosts) {
          if (to === from) continue
          const path = '/v1/who-am-i'
          await from.membership.ask(to.machine.name, { path }).catch(error => failures.push(error))
        }
      }
    })
    expect(await three.membership.authorities.rotate()).toMatchObject({ state: 'Trusting' })
    await expect(one.membership.authorities.rotate()).rejects.toMatchObject({
      code: 'rotationUnderWay',
    })
    for (const host of hosts) {
      const signs = fleet.voters.has(host.machine.name) ? [2] : []
      await expect.poll(() => generations(host), { timeout: 15_000 }).toEqual([[2], 2, signs])
    }
    done = true
    await Promise.all(traffic)
    expect(failures).toEqual([])
    const late = await askRaw(one, { path: '/v1/who-am-i', ...before })
    expect(late.body.code).toBe('certificateRefused')
    const refused = fleet.join(oldToken, { patienceMs: 100 })
    await expect(refused).rejects.toMatchObject({ code: 'tokenOfOtherFleet' })
    const fresh = await fleet.join(await tokenOf(one))
    expect(fresh.folder.generation()).toBe(2)
    const leaf = new X509Certificate(fresh.folder.tls('etcd').cert)
    expect(leaf.verify(new X509Certificate(one.folder.tls('etcd').ca).publicKey)).toBe(true)
  })

  test('waits for a host that is off, and for who began it, and goes on by itself', async () => {
    const { hosts, fleet } = await fleetOf(2)
    const [one, two] = hosts as [FleetHost, FleetHost]
    await two.stop()
    expect(await one.membership.authorities.rotate()).toEqual({
      state: 'Trusting',
      waitingFor: expect.arrayContaining([two.machine.name]),
    })
    // Killed at once, and started again from what is on disk.
    await one.stop()
    const again: FleetHost[] = []
    for (const { machine } of [two, one]) {
      const folder = await openFleetFolder(machine)
      if (folder !== undefined) again.push(await fleet.start(machine, folder))
    }
    for (const host of again) {
      const signs = host.machine.name === one.machine.name ? [2] : []
      await expect.poll(() => generations(host), { timeout: 15_000 }).toEqual([[2], 2, signs])
    }
  })
})
