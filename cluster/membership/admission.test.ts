import { beforeEach, expect, test } from 'vitest'
import { timestamp } from '../../base/clock.ts'
import { defaultLimits } from '../../base/limits.ts'
import { silentLog } from '../../base/log.ts'
import { createManualClock, type ManualClock } from '../../base/manual-clock.ts'
import { systemRandom } from '../../base/random.ts'
import { authoritiesKey, fleetKey, tokenKey } from '../fleet/keys.ts'
import { createIdentity, type Identity } from '../peers/identity.ts'
import { createMemoryStore } from '../store/memory.ts'
import type { Store } from '../store/store.ts'
import { type Admission, createAdmission } from './admission.ts'
import { firstAuthorities } from './authorities.ts'
import { type AuthorityPair, createAuthorityPair, newKeyPair } from './authority.ts'
import { approveMember, createMemberList, listMembers, memberOf, removeMember } from './members.ts'
import {
  type JoinRequest,
  joinRequestSchema,
  type RenewRequest,
  readRequest,
  renewRequestSchema,
  signRequest,
} from './request.ts'
import { decodeToken } from './token-text.ts'
import {
  createToken,
  listTokens,
  machineIdDigest,
  revokeToken,
  type TokenRequest,
} from './tokens.ts'

const fleetId = 'c7a2ef2e-8e6b-4f5e-9a38-9a6d5b0d2f10'
const machine = '0123456789abcdef0123456789abcdef'
let clock: ManualClock
let store: Store
let pair: AuthorityPair
let admission: Admission

beforeEach(async () => {
  clock = createManualClock()
  const needs = { clock, random: systemRandom, log: silentLog, limits: defaultLimits }
  store = createMemoryStore(needs)
  pair = createAuthorityPair({ fleetId, generation: 1 }, needs)
  const fleet = { fleetId, era: 1, revisionBase: 0, createdAt: '2026-01-01T00:00:00Z' }
  const authorities = firstAuthorities(pair, clock)
  await store.transaction({
    compare: [],
    operations: [
      { put: fleetKey, value: fleet },
      { put: authoritiesKey, value: { ...authorities } as never },
    ],
  })
  admission = createAdmission({
    ...needs,
    store,
    members: createMemberList([]),
    signing: generation => (generation === 1 ? pair : undefined),
    known: () => ({ fleet, authorities }),
    etcdEndpoints: () => ['https://10.0.0.1:7482'],
  })
})

async function token(wanted: Partial<TokenRequest> = {}) {
  const request = { ttlMs: 3_600_000, uses: 1, fingerprint: 'f'.repeat(43), addresses: [], era: 1 }
  const needs = { store, clock, random: systemRandom, limits: defaultLimits }
  const { text } = await createToken({ ...request, ...wanted }, needs)
  return decodeToken(text)
}

interface Host {
  name: string
  peer: Identity
  joinId: string
  machineId: string
  address: string
}

let hosts = 0
function host(changes: Partial<Host> = {}): Host {
  hosts++
  return {
    name: `host-${hosts}`,
    peer: createIdentity(systemRandom),
    joinId: `00000000-0000-4000-8000-${String(hosts).padStart(12, '0')}`,
    machineId: machineIdDigest(machine.replace('0123', String(hosts).padStart(4, '0'))),
    address: `10.0.0.${hosts}`,
    ...changes,
  }
}

const ports = { peerPort: 7480, gossipPort: 7481, etcdClientPort: 7482, etcdPeerPort: 7483 }

function common({ name, machineId, address }: Host) {
  const place = { host: address, ...ports }
  return { version: '1', atMs: clock.wallMs(), nonce: 'n', name, machineId, address: place }
}

function ask(from: Host, { id, secret }: { id: string; secret: string }) {
  const keys = { peer: from.peer, etcd: newKeyPair(), hosts: newKeyPair() }
  const content = { ...common(from), tokenId: id, tokenSecret: secret, joinId: from.joinId }
  const request = signRequest<JoinRequest>(fleetId, content, keys)
  return admission.join(readRequest(joinRequestSchema, request, fleetId))
}

function renew(from: Host, hostId: string) {
  const keys = { peer: from.peer, etcd: newKeyPair(), hosts: newKeyPair() }
  const request = signRequest<RenewRequest>(fleetId, { ...common(from), hostId }, keys)
  return admission.renew(readRequest(renewRequestSchema, request, fleetId))
}

async function approved(from: Host, shown: { id: string; secret: string }) {
  const answer = await ask(from, shown)
  if (answer.state !== 'Approved') throw new Error('it was not let in')
  return answer
}

const refuses = (code: string) => expect.objectContaining({ code })

test('who has a token that may be used once is in, and gets all that a host needs', async () => {
  const first = host()
  const answer = await approved(first, await token({ rack: 'a' }))
  expect(answer).toMatchObject({
    generation: 1,
    fleet: { fleetId, era: 1 },
    member: { name: first.name, peerId: first.peer.peerId, rack: 'a', state: 'Approved' },
    members: [{ name: first.name }],
    etcdEndpoints: ['https://10.0.0.1:7482'],
  })
  expect(JSON.stringify(answer)).not.toContain('PRIVATE')
})

test('of many that use one token at once, exactly as many get in as it allows', async () => {
  const once = await token()
  const all = await Promise.allSettled(Array.from({ length: 12 }, () => ask(host(), once)))
  expect(all.filter(({ status }) => status === 'fulfilled')).toHaveLength(1)
  for (const result of all) {
    if (result.status === 'rejected') expect(result.reason).toMatchObject({ code: 'tokenUsedUp' })
  }
  expect(await listMembers(store)).toHaveLength(1)
  const thrice = await token({ uses: 3 })
  const some = await Promise.allSettled(Array.from({ length: 8 }, () => ask(host(), thrice)))
  expect(some.filter(({ status }) => status === 'fulfilled')).toHaveLength(3)
  expect(await listMembers(store)).toHaveLength(4)
})

test('an answer that was lost is given again, without another use', async () => {
  const once = await token()
  const one = host()
  const answers = await Promise.all([approved(one, once), approved(one, once)])
  const again = await approved(one, once)
  expect(new Set([...answers, again].map(({ member }) => member.hostId)).size).toBe(1)
  expect(await listTokens(store)).toMatchObject([{ id: once.id, usesLeft: 0 }])
})

test('with a token for many a host waits, unless its machine was listed', async () => {
  const listed = host({ machineId: machineIdDigest(machine) })
  const many = await token({ uses: 5, machineIds: [machine.toUpperCase()] })
  expect((await approved(listed, many)).member.name).toBe(listed.name)
  const unknown = host()
  expect(await ask(unknown, many)).toEqual({ state: 'Pending' })
  expect(await ask(unknown, many)).toEqual({ state: 'Pending' })
  const { hostId } = (await listMembers(store)).find(({ name }) => name === unknown.name) ?? {}
  await expect(renew(unknown, hostId ?? '')).rejects.toEqual(refuses('notMember'))
  await revokeToken(store, many.id)
  await approveMember(store, unknown.name)
  expect((await approved(unknown, many)).member.state).toBe('Approved')
})

test('tokens that are wrong, expired, revoked, used up or of another era are refused', async () => {
  const good = await token()
  const wrong = { id: good.id, secret: 'B'.repeat(22) }
  await expect(ask(host(), wrong)).rejects.toEqual(refuses('tokenRefused'))
  await expect(ask(host(), { ...good, id: 'zzzzzzzzzz' })).rejects.toEqual(refuses('tokenRefused'))
  const short = await token({ ttlMs: 60_000 })
  await clock.advance(60_000)
  await expect(ask(host(), short)).rejects.toEqual(refuses('tokenExpired'))
  await revokeToken(store, good.id)
  await expect(ask(host(), good)).rejects.toEqual(refuses('tokenRefused'))
  const old = await token({ era: 0 })
  await expect(ask(host(), old)).rejects.toEqual(refuses('tokenRefused'))
  await expect(revokeToken(store, '../x')).rejects.toEqual(refuses('notFound'))
  expect(await listMembers(store)).toEqual([])
  // What ended more than a day ago is not kept.
  await clock.advance(26 * 3_600_000)
  await token()
  expect(await listTokens(store)).toHaveLength(1)
})

test('a token never lies in the store, nor does what would find it', async () => {
  const { id, secret } = await token()
  const { entry } = await store.get(tokenKey(id))
  expect(JSON.stringify(entry)).not.toContain(secret)
})

test('a name belongs to the host that has it, until that is removed', async () => {
  const many = await token({ uses: 50 })
  const first = host({ name: 'taken' })
  await ask(first, many)
  await approveMember(store, 'taken')
  const { hostId: before } = (await listMembers(store))[0] ?? {}
  await expect(ask(host({ name: 'taken' }), many)).rejects.toEqual(refuses('hostNameTaken'))
  // The same machine without its folder proves nothing.
  const empty = host({ name: 'taken', machineId: first.machineId })
  await expect(ask(empty, many)).rejects.toEqual(refuses('hostNameTaken'))
  // Its folder on another machine, and under another name.
  const copied = { ...first, machineId: host().machineId, joinId: host().joinId }
  await expect(ask(copied, many)).rejects.toEqual(refuses('hostKeyTaken'))
  const renamed = { ...first, name: 'other', joinId: host().joinId }
  await expect(ask(renamed, many)).rejects.toEqual(refuses('hostKeyTaken'))
  // The same host with its old folder comes back as a new member, and its old self is nobody.
  const back = await approved({ ...first, joinId: host().joinId }, many)
  expect(back.member.hostId).not.toBe(before)
  await expect(renew(first, before ?? '')).rejects.toEqual(refuses('notMember'))
  await removeMember(store, 'taken')
  await expect(renew(first, back.member.hostId)).rejects.toEqual(refuses('notMember'))
  expect(await ask(host({ name: 'taken' }), many)).toEqual({ state: 'Pending' })
  expect(await ask({ ...first, name: 'other' }, many)).toEqual({ state: 'Pending' })
})

test('an address of another host is certified neither at joining nor at renewing', async () => {
  const first = host()
  await approved(first, await token())
  const second = host({ address: first.address })
  await expect(ask(second, await token())).rejects.toEqual(refuses('hostAddressTaken'))
  const third = host()
  const { member } = await approved(third, await token())
  const moved = { ...third, address: first.address }
  await expect(renew(moved, member.hostId)).rejects.toEqual(refuses('hostAddressTaken'))
})

test('an address is the same however it is written', async () => {
  const first = host({ address: '10.0.1.255' })
  await approved(first, await token())
  for (const address of ['::ffff:10.0.1.255', '::ffff:a00:1ff', '0:0:0:0:0:FFFF:0a00:01ff']) {
    await expect(ask(host({ address }), await token())).rejects.toEqual(refuses('hostAddressTaken'))
  }
  await approved(host({ address: 'fd00::1' }), await token())
  const longer = host({ address: 'FD00:0:0::0001' })
  await expect(ask(longer, await token())).rejects.toEqual(refuses('hostAddressTaken'))
  await approved(host({ address: 'fd00::2' }), await token())
})

test('a member of a backup is none of the restored fleet until it has joined anew', async () => {
  const from = host()
  const old = await token()
  const { member } = await approved(from, old)
  await clock.advance(60_000)
  const { entry } = await store.get(fleetKey)
  const record = { ...(entry?.value as object), recoveringSince: timestamp(clock) }
  await store.transaction({ compare: [], operations: [{ put: fleetKey, value: record }] })
  await expect(renew(from, member.hostId)).rejects.toEqual(refuses('notMember'))
  // Nor by saying once more what it said when it came in.
  await expect(ask(from, old)).rejects.toEqual(refuses('tokenUsedUp'))
  await clock.advance(60_000)
  const again = await approved(from, await token())
  expect((await renew(from, again.member.hostId)).member.name).toBe(from.name)
})

test('what an operator reads before an approval has no control characters', async () => {
  const from = host()
  const shown = await token()
  const keys = { peer: from.peer, etcd: newKeyPair(), hosts: newKeyPair() }
  const content = {
    ...common(from),
    version: '1\u001b[2J',
    tokenId: shown.id,
    tokenSecret: shown.secret,
    joinId: from.joinId,
  }
  const request = signRequest<JoinRequest>(fleetId, content, keys)
  const read = () => readRequest(joinRequestSchema, request, fleetId)
  expect(read).toThrow(refuses('badRequest'))
})

test('a member gets new certificates for its own key and id only', async () => {
  const one = host()
  const two = host()
  const { member } = await approved(one, await token())
  await approved(two, await token())
  expect((await renew(one, member.hostId)).member.hostId).toBe(member.hostId)
  // Another member that says it is this one.
  const thief = { ...one, peer: two.peer }
  await expect(renew(thief, member.hostId)).rejects.toEqual(refuses('notMember'))
})

test("no peer id is to be had without its key, no certificate for another's key", async () => {
  const one = host()
  const keys = { peer: one.peer, etcd: newKeyPair(), hosts: newKeyPair() }
  const shown = await token()
  const content = {
    ...common(one),
    tokenId: shown.id,
    tokenSecret: shown.secret,
    joinId: one.joinId,
  }
  const request = signRequest<JoinRequest>(fleetId, content, keys)
  const read =
    (changed: Partial<JoinRequest>, fleet = fleetId) =>
    () =>
      readRequest(joinRequestSchema, { ...request, ...changed }, fleet)
  expect(read({})).not.toThrow()
  const other = createIdentity(systemRandom)
  expect(read({ peerId: other.peerId })).toThrow('peer id')
  expect(read({ name: 'other' })).toThrow('peer id')
  expect(read({ address: { ...request.address, host: '10.9.9.9' } })).toThrow('peer id')
  expect(read({}, 'c7a2ef2e-8e6b-4f5e-9a38-9a6d5b0d2f11')).toThrow('peer id')
  const forged = signRequest<JoinRequest>(fleetId, content, {
    ...keys,
    hosts: { publicKey: newKeyPair().publicKey, privateKey: newKeyPair().privateKey },
  })
  expect(() => readRequest(joinRequestSchema, forged, fleetId)).toThrow('keys to be certified')
})

test('while the store does not answer, members known before still get certificates', async () => {
  const one = host()
  const { member } = await approved(one, await token())
  const members = createMemberList([member])
  const { entry } = await store.get(fleetKey)
  await store.close()
  admission = createAdmission({
    store,
    members,
    clock,
    random: systemRandom,
    log: silentLog,
    limits: defaultLimits,
    signing: () => pair,
    known: () => ({ fleet: entry?.value as never, authorities: firstAuthorities(pair, clock) }),
    etcdEndpoints: () => [],
  })
  expect((await renew(one, member.hostId)).members.map(({ name }) => name)).toEqual([one.name])
  await expect(renew(host(), member.hostId)).rejects.toEqual(refuses('notMember'))
})

test('the fleet takes so many hosts and tokens and no more', async () => {
  const limits = { ...defaultLimits, joinTokens: 2 }
  const make = () =>
    createToken(
      { ttlMs: 60_000, uses: 1, fingerprint: '', addresses: [], era: 1 },
      { store, clock, random: systemRandom, limits },
    )
  await make()
  await make()
  await expect(make()).rejects.toEqual(refuses('tooMany'))
  const odd = { machineIds: ['x'] }
  await expect(token(odd)).rejects.toEqual(refuses('badRequest'))
  await expect(token({ uses: 0 })).rejects.toEqual(refuses('badRequest'))
  await expect(token({ ttlMs: 1 })).rejects.toEqual(refuses('badRequest'))
  const { entries } = await store.list('fleet/members/')
  expect(entries.map(memberOf)).toEqual([])
})
