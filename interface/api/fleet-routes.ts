import type { FastifyInstance } from 'fastify'
import Type, { type Static, type TSchema } from 'typebox'
import { failure } from '../../base/errors.ts'
import { findCauses } from '../../resources/validate.ts'
import { type VirtualMachine, virtualMachineKind } from '../../resources/virtual-machine.ts'
import { readValue } from './body.ts'
import { type ApiContext, type ApiRequest, type Handler, referenceOf } from './context.ts'
import { objectFrom } from './input.ts'
import { collectionPath } from './resource-routes.ts'
import { serve } from './routes.ts'

const strict = { additionalProperties: false }
const emptySchema = Type.Object({}, strict)
const joinSchema = Type.Object({ token: Type.String({ minLength: 1, maxLength: 8192 }) }, strict)
const leaveSchema = Type.Object({ force: Type.Boolean({ default: false }) }, strict)
const tokenSchema = Type.Object(
  {
    ttlMs: Type.Optional(Type.Integer({ minimum: 1000 })),
    uses: Type.Optional(Type.Integer({ minimum: 1 })),
    rack: Type.Optional(
      Type.String({ maxLength: 63, pattern: '^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$' }),
    ),
    machineIds: Type.Optional(Type.Array(Type.String({ maxLength: 128 }), { maxItems: 1000 })),
  },
  strict,
)
const passphraseSchema = Type.Object(
  { passphrase: Type.String({ minLength: 1, maxLength: 1024 }) },
  strict,
)
/** Of a restore, whose body is the backup. Base64, because headers hold ASCII only. */
const passphraseHeader = 'x-macfleet-passphrase'

/** Serves what is done with the fleet as a whole; on the local socket only. */
export function fleetRoutes(app: FastifyInstance, context: ApiContext): void {
  const { fleet } = context
  const read = <Schema extends TSchema>(request: ApiRequest, schema: Schema) =>
    readInput(request, schema, context)
  const begin =
    (act: (request: ApiRequest) => Promise<void>): Handler =>
    async (request, reply) => {
      await act(request)
      return reply.code(202).send(await fleet.status())
    }
  const done =
    (act: (request: ApiRequest) => Promise<void>): Handler =>
    async (request, reply) => {
      await act(request)
      return reply.send({ status: 'Success' })
    }
  serve(app, '/fleet', { GET: async (_, reply) => reply.send(await fleet.status()) })
  serve(app, '/fleet/init', {
    POST: begin(async request => {
      await read(request, emptySchema)
      await fleet.init()
    }),
  })
  serve(app, '/fleet/join', {
    POST: begin(async request => fleet.join((await read(request, joinSchema)).token)),
  })
  serve(app, '/fleet/leave', {
    POST: begin(async request => fleet.leave(await read(request, leaveSchema))),
  })
  serve(app, '/fleet/tokens', {
    GET: async (_, reply) => reply.send({ items: await fleet.listTokens() }),
    POST: async (request, reply) =>
      reply.code(201).send(await fleet.createToken(await read(request, tokenSchema))),
  })
  serve(app, '/fleet/tokens/:name', { DELETE: done(request => fleet.revokeToken(nameIn(request))) })
  serve(app, '/fleet/hosts/:name/approve', {
    POST: done(request => fleet.approveHost(nameIn(request))),
  })
  serve(app, '/fleet/hosts/:name/remove', {
    POST: done(request => fleet.removeHost(nameIn(request))),
  })
  serve(app, '/fleet/hosts/:name/forget', {
    POST: done(request => fleet.forgetHost(nameIn(request))),
  })
  serve(app, '/fleet/rotate-ca', { POST: done(() => fleet.rotateAuthorities()) })
  serve(app, '/fleet/backup', {
    POST: async (request, reply) => {
      const { passphrase } = await read(request, passphraseSchema)
      return reply.type('application/octet-stream').send(await fleet.backup(passphrase))
    },
  })
  serve(app, '/fleet/restore', {
    PUT: begin(request => fleet.restore(request.raw, passphraseOf(request))),
  })
  explainRoutes(app, context)
}

function explainRoutes(app: FastifyInstance, context: ApiContext): void {
  const { fleet, objects } = context
  serve(app, `${collectionPath(virtualMachineKind)}/:name/explain`, {
    async GET(request, reply) {
      const reference = referenceOf(virtualMachineKind, request)
      const machine = await objects.get(virtualMachineKind, reference)
      return reply.send(await fleet.explain(machine))
    },
    /** Of a machine that is not there: where it would go. */
    async POST(request, reply) {
      const { params, query } = request
      const value = await readValue(request.raw, context)
      const given = objectFrom(virtualMachineKind, value, { params, query, reply })
      const machine = await objects.create(virtualMachineKind, given as VirtualMachine, {
        dryRun: true,
      })
      return reply.send(await fleet.explain(machine))
    },
  })
}

async function readInput<Schema extends TSchema>(
  request: ApiRequest,
  schema: Schema,
  context: ApiContext,
): Promise<Static<Schema>> {
  const value = (await readValue(request.raw, context)) ?? {}
  const causes = findCauses(schema, value)
  if (causes.length === 0) return { force: false, ...value } as Static<Schema>
  const detail = causes.map(({ field, message }) => `${field}: ${message}`).join('; ')
  throw failure('badRequest', { detail }, { causes })
}

/** A host's name may have dots. One that could not be named here could not be put out either. */
function nameIn({ params: { name = '' } }: ApiRequest): string {
  if (name.length <= 253 && /^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/.test(name)) return name
  throw failure('notFound', { resource: 'fleet', name: name.slice(0, 253) })
}

function passphraseOf({ headers }: ApiRequest): string {
  const header = headers[passphraseHeader]
  const text = Buffer.from(typeof header === 'string' ? header : '', 'base64').toString('utf8')
  if (text !== '' && text.length <= 1024) return text
  throw failure('badRequest', { detail: `the header ${passphraseHeader} must hold a passphrase` })
}
