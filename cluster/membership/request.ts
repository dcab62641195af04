import { createHash, createPublicKey, type KeyObject, sign, verify } from 'node:crypto'
import { isIP } from 'node:net'
import Type, { type Static } from 'typebox'
import { Value } from 'typebox/value'
import { failure } from '../../base/errors.ts'
import type { MemberAddress } from '../fleet/member.ts'
import { type Identity, isSignedBy } from '../peers/identity.ts'
import { hostNamePattern } from './identity.ts'

const strict = { additionalProperties: false }
const text = (maxLength: number, pattern?: string) =>
  Type.String({ maxLength, ...(pattern === undefined ? {} : { pattern }) })
const base64 = (maxLength: number) => text(maxLength, '^[A-Za-z0-9+/]+=*$')
const uuid = text(36, '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$')
const port = Type.Integer({ minimum: 1, maximum: 65_535 })

const common = {
  /** The version of macfleet that asks; printable, because people see it before they approve. */
  version: text(64, '^[\\x20-\\x7e]*$'),
  /** Its wall clock, in milliseconds since the epoch. */
  atMs: Type.Integer({ minimum: 0, maximum: 8_640_000_000_000_000 }),
  /** From the server's hello: a request that was heard once is worth nothing later. */
  nonce: text(128, '^[A-Za-z0-9_-]+$'),
  name: text(253, hostNamePattern),
  machineId: text(32, '^[0-9a-f]{32}$'),
  address: Type.Object(
    {
      host: text(45),
      peerPort: port,
      gossipPort: port,
      etcdClientPort: port,
      etcdPeerPort: port,
      transferPort: Type.Optional(port),
    },
    strict,
  ),
  peerId: text(64, '^[A-Za-z0-9]+$'),
  /** The public keys that are to be certified: SubjectPublicKeyInfo, DER, base64. */
  etcdKey: base64(256),
  hostsKey: base64(256),
  /** By each of the three keys over `requestDigest`, base64: whoever asks holds them all. */
  signatures: Type.Object(
    { peer: base64(128), etcd: base64(128), hosts: base64(128) },
    { ...strict },
  ),
}

/** What a host sends that wants to be let in. */
export const joinRequestSchema = Type.Object(
  {
    ...common,
    tokenId: text(32, '^[a-z0-9]+$'),
    tokenSecret: text(64, '^[A-Za-z0-9_-]+$'),
    /** Made by the joiner, kept until it is in: with it a join that broke off is taken up again. */
    joinId: uuid,
    rack: Type.Optional(text(63, '^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$')),
  },
  strict,
)

/** What a member sends that wants new certificates. */
export const renewRequestSchema = Type.Object({ ...common, hostId: uuid }, strict)

/** A host that wants to be let in. */
export type JoinRequest = Static<typeof joinRequestSchema>
/** A member that wants new certificates. */
export type RenewRequest = Static<typeof renewRequestSchema>
type Request = JoinRequest | RenewRequest
type Unsigned<R extends Request> = Omit<R, 'signatures' | 'peerId' | 'etcdKey' | 'hostsKey'>

/** The keys of a host that asks for certificates. */
export interface RequestKeys {
  peer: Identity
  etcd: { privateKey: KeyObject; publicKey: KeyObject }
  hosts: { privateKey: KeyObject; publicKey: KeyObject }
}

const spkiOf = (key: KeyObject): string =>
  key.export({ type: 'spki', format: 'der' }).toString('base64')

/** Signs what is asked for with all three keys. */
export function signRequest<R extends Request>(
  fleetId: string,
  content: Unsigned<R>,
  { peer, etcd, hosts }: RequestKeys,
): R {
  const keys = {
    peerId: peer.peerId,
    etcdKey: spkiOf(etcd.publicKey),
    hostsKey: spkiOf(hosts.publicKey),
  }
  const unsigned = { ...content, ...keys } as unknown as Omit<R, 'signatures'>
  const digest = requestDigest(fleetId, unsigned as never)
  const signatures = {
    peer: Buffer.from(peer.sign(digest)).toString('base64'),
    etcd: sign('sha256', digest, etcd.privateKey).toString('base64'),
    hosts: sign('sha256', digest, hosts.privateKey).toString('base64'),
  }
  return { ...unsigned, signatures } as unknown as R
}

/**
 * What is signed: everything in the request but the signatures and the token's secret, and which
 * fleet it is for, so that one host of another fleet can't pass it on there.
 */
export function requestDigest(fleetId: string, request: Omit<Request, 'signatures'>): Buffer {
  const { signatures: _, tokenSecret: __, address, ...rest } = request as JoinRequest
  const { host, peerPort, gossipPort, etcdClientPort, etcdPeerPort, transferPort } = address
  const parts = Object.entries(rest).sort(([a], [b]) => (a < b ? -1 : 1))
  const places = [host, peerPort, gossipPort, etcdClientPort, etcdPeerPort]
  if (transferPort !== undefined) places.push(transferPort)
  const kind = 'tokenId' in request ? 'join' : 'renew'
  const content = JSON.stringify([`macfleet ${kind} 1`, fleetId, parts, places])
  return createHash('sha256').update(content).digest()
}

/** A request whose three keys were proven. */
export interface ProvenRequest<R extends Request> {
  request: R
  peerId: string
  etcdKey: KeyObject
  hostsKey: KeyObject
  address: MemberAddress
}

/**
 * Reads a request from outside.
 * @throws badRequest when it is none, joinRefused when a key is not proven
 */
export function readRequest<R extends Request>(
  schema: typeof joinRequestSchema | typeof renewRequestSchema,
  body: unknown,
  fleetId: string,
): ProvenRequest<R> {
  if (!Value.Check(schema, body)) {
    const [first] = Value.Errors(schema, body)
    const detail = first === undefined ? '' : `: ${first.instancePath} ${first.message}`
    throw failure('badRequest', { detail: `this is no such request${detail}`.slice(0, 300) })
  }
  const request = body as R
  const { address, signatures, peerId } = request
  if (isIP(address.host) === 0 || /%|^0\.0\.0\.0$|^::$/.test(address.host)) {
    throw failure('badRequest', { detail: 'address.host is no IP address' })
  }
  const digest = requestDigest(fleetId, request)
  if (!isSignedBy(peerId, digest, Buffer.from(signatures.peer, 'base64'))) {
    throw failure('joinRefused', { detail: 'it is not signed by the key of its peer id' })
  }
  const etcdKey = provenKey(request.etcdKey, digest, signatures.etcd)
  const hostsKey = provenKey(request.hostsKey, digest, signatures.hosts)
  if (etcdKey === undefined || hostsKey === undefined) {
    throw failure('joinRefused', { detail: 'it is not signed by the keys to be certified' })
  }
  return { request, peerId, etcdKey, hostsKey, address }
}

function provenKey(spki: string, digest: Buffer, signature: string): KeyObject | undefined {
  try {
    const key = createPublicKey({
      key: Buffer.from(spki, 'base64'),
      format: 'der',
      type: 'spki',
    })
    const { namedCurve } = key.asymmetricKeyDetails ?? {}
    if (key.asymmetricKeyType !== 'ec' || namedCurve !== 'prime256v1') return undefined
    return verify('sha256', digest, key, Buffer.from(signature, 'base64')) ? key : undefined
  } catch {
    return undefined
  }
}
