import { Agent } from 'node:https'
import { connect as connectPlain } from 'node:net'
import { connect } from 'node:tls'
import fc from 'fast-check'
import { expect, onTestFinished, test } from 'vitest'
import { defaultLimits } from '../../base/limits.ts'
import { newKeyPair } from '../../cluster/membership/authority.ts'
import { listMembers } from '../../cluster/membership/members.ts'
import {
  type JoinRequest,
  type RenewRequest,
  signRequest,
} from '../../cluster/membership/request.ts'
import { decodeToken } from '../../cluster/membership/token-text.ts'
import type { Store } from '../../cluster/store/store.ts'
import { type FleetHost, makeFleet, tokenOf } from '../../test/support/fleet-hosts.ts'
import { askRaw } from '../../test/support/raw-request.ts'

/** A host that lets everybody try as often as he likes. */
async function patientHost(): Promise<{ host: FleetHost; agent: Agent; store: Store }> {
  const fleet = makeFleet({ ...defaultLimits, joinAttempts: 1e9 })
  const host = await fleet.begin()
  const agent = new Agent({ keepAlive: true })
  onTestFinished(() => agent.destroy())
  return { host, agent, store: fleet.store }
}

async function goodBodies(host: FleetHost): Promise<{ join: JoinRequest; renew: RenewRequest }> {
  const { fleetId, name, hostId } = host.folder.identity
  const { id, secret } = decodeToken(await tokenOf(host))
  const { nonce } = (await askRaw(host, { path: '/v1/hello' })).body
  const common = {
    version: '1',
    atMs: Date.now(),
    nonce: String(nonce),
    name,
    machineId: host.folder.machineId,
    address: host.machine.address,
  }
  const keys = { peer: host.folder.peer, etcd: newKeyPair(), hosts: newKeyPair() }
  const joinId = '00000000-0000-4000-8000-000000000000'
  const joining = { ...common, name: 'other', tokenId: id, tokenSecret: secret, joinId }
  return {
    join: signRequest<JoinRequest>(fleetId, joining, keys),
    renew: signRequest<RenewRequest>(fleetId, { ...common, hostId }, keys),
  }
}

test('no body brings more than a refusal, and none lets anybody in', async () => {
  const { host, agent, store } = await patientHost()
  const good = await goodBodies(host)
  const fields = [...new Set(Object.values(good).flatMap(Object.keys))]
  const value = fc.oneof(
    fc.jsonValue(),
    fc.string({ maxLength: 300 }),
    fc.base64String({ maxLength: 300 }),
    fc.constantFrom('__proto__', '\u0000', '../../etc/passwd', 'a'.repeat(5_000), -1, 1e308),
  )
  const changed = fc.record({
    kind: fc.constantFrom('join', 'renew'),
    field: fc.constantFrom(...fields, 'constructor', 'x'),
    value,
    nested: fc.boolean(),
  })
  await fc.assert(
    fc.asyncProperty(changed, async ({ kind, field, value: other, nested }) => {
      const body = structuredClone(good[kind as 'join']) as Record<string, unknown>
      const target = nested ? (body['address'] as Record<string, unknown>) : body
      fc.pre(JSON.stringify(target[field]) !== JSON.stringify(other))
      Object.defineProperty(target, field, { value: other, enumerable: true })
      const { status } = await askRaw(host, { path: `/v1/${kind}`, body, agent })
      // Only the token's secret is not signed; a wrong one is refused by itself.
      expect(status).toBeGreaterThanOrEqual(400)
      expect(status).toBeLessThan(500)
    }),
    { numRuns: 250 },
  )
  await fc.assert(
    fc.asyncProperty(fc.constantFrom('join', 'renew'), fc.string(), async (kind, text) => {
      const { status } = await askRaw(host, { path: `/v1/${kind}`, body: text, agent })
      expect(status).toBe(400)
    }),
    { numRuns: 100 },
  )
  expect((await listMembers(store)).map(({ name }) => name)).toEqual([host.machine.name])
  // It was the changes that were refused.
  expect((await askRaw(host, { path: '/v1/renew', body: good.renew })).status).toBe(200)
})

test('what is too large, no JSON, no HTTP or no TLS is ended; the next is answered', async () => {
  const { host } = await patientHost()
  const large = await askRaw(host, { path: '/v1/join', body: 'x'.repeat(100_000) }).catch(
    error => error,
  )
  expect(large.status ?? large.code).toSatisfy(
    said => said === 413 || /E(PIPE|CONNRESET)/.test(said),
  )
  const typed = { path: '/v1/join', body: 'x', headers: { 'content-type': 'text/plain' } }
  expect((await askRaw(host, typed)).status).toBe(400)
  expect((await askRaw(host, { path: '/v1/nothing' })).status).toBe(404)
  const { host: address, peerPort: port } = host.machine.address
  const bytes = Buffer.alloc(70_000, 0x41)
  const plain = connectPlain({ host: address, port }, () => plain.write(bytes))
  const secure = connect({ host: address, port, rejectUnauthorized: false }, () =>
    secure.write(bytes),
  )
  const ended = [plain, secure].map(socket => {
    socket.on('error', () => {})
    socket.resume()
    return new Promise<void>(resolve => socket.on('close', () => resolve()))
  })
  await Promise.all(ended)
  expect((await askRaw(host, { path: '/v1/hello' })).status).toBe(200)
})

test('one address does not get all connections; what it leaves is for the others', async () => {
  const fleet = makeFleet({ ...defaultLimits, peerPortConnectionsPerSource: 3 })
  const host = await fleet.begin()
  const { host: address, peerPort: port } = host.machine.address
  const greedy = Array.from({ length: 4 }, () =>
    connectPlain({ host: address, port, localAddress: '127.0.0.2' }),
  )
  onTestFinished(() => {
    for (const socket of greedy) socket.destroy()
  })
  const closed = greedy.map(socket => {
    socket.on('error', () => {})
    socket.resume()
    return new Promise<void>(resolve => socket.on('close', () => resolve()))
  })
  await Promise.race(closed)
  expect(greedy.filter(socket => socket.destroyed)).toHaveLength(1)
  expect((await askRaw(host, { path: '/v1/hello' })).status).toBe(200)
})
