import Type from 'typebox'
import { Value } from 'typebox/value'
import type { Admitted } from '../../cluster/membership/admission.ts'
import { knownSchema } from './fleet-file.ts'

const pem = Type.String({ maxLength: 16_384 })
/** Where a host is, and nothing else. */
const endpoint = Type.String({
  maxLength: 64,
  pattern: '^https://([0-9.]+|\\[[0-9a-fA-F:.]+\\]):[0-9]{1,5}$',
})

const admittedSchema = Type.Intersect([
  Type.Object({
    state: Type.Literal('Approved'),
    certificates: Type.Object({ etcd: pem, hosts: pem }),
    generation: Type.Integer({ minimum: 1 }),
    etcdEndpoints: Type.Array(endpoint),
  }),
  knownSchema,
])

/** What another host gave; undefined when it is something else. */
export function readAdmitted(value: unknown): Admitted | undefined {
  return Value.Check(admittedSchema, value) ? (value as unknown as Admitted) : undefined
}

/** Whether another host said that we have to wait. */
export function isPending(value: unknown): boolean {
  return (
    typeof value === 'object' && value !== null && 'state' in value && value.state === 'Pending'
  )
}
