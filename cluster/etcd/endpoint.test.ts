import { createServer, type Socket } from 'node:net'
import { expect, onTestFinished, test } from 'vitest'
import { systemClock } from '../../base/clock.ts'
import { systemRandom } from '../../base/random.ts'
import {
  createAuthorityPair,
  issueCertificate,
  newKeyPair,
  privateKeyText,
} from '../membership/authority.ts'
import { createEndpoint } from './endpoint.ts'
import { loadRpc } from './rpc.ts'

const identity = {
  fleetId: 'c7a2ef2e-8e6b-4f5e-9a38-9a6d5b0d2f10',
  name: 'host-1',
  peerId: '12D3KooW',
  hostId: '00000000-0000-4000-8000-000000000001',
}

/** Notes the first byte that each connection brings. */
async function listen(): Promise<{ port: number; firstByte: Promise<number> }> {
  const heard = Promise.withResolvers<number>()
  const open = new Set<Socket>()
  const server = createServer(socket => {
    open.add(socket)
    socket.on('error', () => {})
    socket.once('data', data => heard.resolve(data.readUInt8(0)))
  })
  onTestFinished(() => {
    for (const socket of open) socket.destroy()
    server.close()
  })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('no port')
  return { port: address.port, firstByte: heard.promise }
}

test('who has certificates never speaks plain text, whatever a URL says', async () => {
  const components = { clock: systemClock, random: systemRandom }
  const { etcd } = createAuthorityPair({ fleetId: identity.fleetId, generation: 1 }, components)
  const { publicKey, privateKey } = newKeyPair()
  const subject = { identity, address: '127.0.0.1', publicKey }
  const tls = {
    certificateAuthority: etcd.certificate,
    certificate: issueCertificate('etcd', etcd, subject, components),
    key: privateKeyText(privateKey),
  }
  const { port, firstByte } = await listen()
  const url = `http://127.0.0.1:${port}`
  const endpoint = createEndpoint({ url, tls }, await loadRpc(), systemClock)
  onTestFinished(() => endpoint.retire())
  endpoint.ready(2_000).catch(() => {})
  // A TLS record with a handshake (RFC 8446, section 5.1).
  expect(await firstByte).toBe(22)
})
