import Type, { type Static } from 'typebox'
import { Value } from 'typebox/value'
import type { FleetRecord, Member } from '../../cluster/fleet/member.ts'
import type { AuthoritiesRecord } from '../../cluster/membership/authorities.ts'
import type { AuthorityPair } from '../../cluster/membership/authority.ts'

const text = Type.String({ maxLength: 512 })
const count = Type.Integer({ minimum: 0 })
const pem = Type.String({ maxLength: 16_384 })

/** Unknown fields are let through: a newer macfleet may have written them. */
const memberSchema = Type.Object({
  name: text,
  hostId: text,
  machineId: text,
  peerId: text,
  address: Type.Object({
    host: text,
    peerPort: count,
    gossipPort: count,
    etcdClientPort: count,
    etcdPeerPort: count,
    transferPort: Type.Optional(count),
  }),
  rack: Type.Optional(text),
  state: Type.Enum(['Pending', 'Approved']),
  joinedAt: text,
  version: text,
})

/** What a host knows of its fleet: when it starts, before any other host has answered. */
export const knownSchema = Type.Object({
  fleet: Type.Object({
    fleetId: text,
    era: count,
    revisionBase: count,
    createdAt: text,
    recoveringSince: Type.Optional(text),
  }),
  authorities: Type.Object({
    trusted: Type.Array(
      Type.Object({ generation: count, etcd: pem, hosts: pem, createdAt: text }),
      { minItems: 1, maxItems: 2 },
    ),
    signing: count,
  }),
  /** This host's own record. */
  member: memberSchema,
  members: Type.Array(memberSchema),
  /** Names of hosts that can sign. */
  signers: Type.Array(text),
  /** Where etcd's clients connect. */
  etcdEndpoints: Type.Array(text),
})

const fileSchema = Type.Intersect([
  Type.Object({
    version: Type.Literal(1),
    /** The digest of the machine id of the machine that the folder belongs to. */
    machineId: text,
  }),
  knownSchema,
])

/** The newest that a host knows of its fleet. */
export interface Known {
  fleet: FleetRecord
  authorities: AuthoritiesRecord
  member: Member
  members: readonly Member[]
  signers: readonly string[]
  etcdEndpoints: readonly string[]
}

/** `fleet.json`. */
export interface FleetFile extends Known {
  version: 1
  machineId: string
}

/** @returns undefined when it is something else */
export function readFleetFile(value: unknown): FleetFile | undefined {
  return Value.Check(fileSchema, value)
    ? (value as Static<typeof fileSchema> as unknown as FleetFile)
    : undefined
}

const keysSchema = Type.Array(
  Type.Object({
    generation: count,
    etcd: Type.Object({ certificate: pem, key: pem }),
    hosts: Type.Object({ certificate: pem, key: pem }),
  }),
  { maxItems: 8 },
)

/** The authorities' keys, from `authorities.json` or from another host. */
export function readAuthorityPairs(value: unknown): AuthorityPair[] | undefined {
  return Value.Check(keysSchema, value) ? (value as AuthorityPair[]) : undefined
}
