import Type, { type Static } from 'typebox'
import { conditionSchema, findCondition } from './condition.ts'
import { formatAge } from './duration.ts'
import { type Kind, nameColumn } from './kind.ts'
import { metadataSchema } from './metadata.ts'
import { approximateBytes } from './quantity.ts'

const strict = { additionalProperties: false }

const amountsSchema = (description: string) =>
  Type.Object(
    {
      cpu: Type.Number({ description: 'Cores.' }),
      memoryBytes: Type.Integer(),
      diskBytes: Type.Integer({ description: "Of the file system that holds the host's data." }),
      machines: Type.Integer({ description: 'Virtual machines.' }),
    },
    { ...strict, description },
  )

/** What keeps machines off a host that do not tolerate it. */
export const taintSchema = Type.Object(
  {
    key: Type.String({ minLength: 1, maxLength: 253 }),
    value: Type.Optional(Type.String({ maxLength: 63 })),
    effect: Type.Enum(['NoSchedule', 'PreferNoSchedule']),
  },
  strict,
)

/** The schema of a Host. */
export const hostSchema = Type.Object(
  {
    apiVersion: Type.Literal('macfleet.dev/v1'),
    kind: Type.Literal('Host'),
    metadata: metadataSchema,
    spec: Type.Object(
      {
        schedulable: Type.Boolean({ default: true, description: 'Whether it takes new machines.' }),
        drain: Type.Optional(
          Type.Boolean({
            description: 'Give away what may run elsewhere, and wait for the rest to end.',
          }),
        ),
        taints: Type.Optional(Type.Array(taintSchema, { maxItems: 64 })),
        macosGuests: Type.Optional(
          Type.Integer({
            minimum: 0,
            maximum: 64,
            description: 'The most macOS guests at a time; 2 when left out. Others do not count.',
          }),
        ),
      },
      { ...strict, description: "What the host may be used for. The operator's." },
    ),
    status: Type.Optional(
      Type.Object(
        {
          capacity: Type.Optional(amountsSchema('What the machine has.')),
          allocatable: Type.Optional(amountsSchema('What guests may have of it.')),
          reserved: Type.Optional(amountsSchema('What guests have been promised.')),
          usage: Type.Optional(
            Type.Object(
              {
                cpuFraction: Type.Number({ description: 'Busy share of all cores, 0 to 1.' }),
                memoryBytes: Type.Integer(),
                diskBytes: Type.Integer(),
                load1: Type.Number({ description: 'Load average over a minute.' }),
              },
              { ...strict, description: 'What is in use, by whatever runs on the machine.' },
            ),
          ),
          accelerator: Type.Optional(Type.Enum(['kvm', 'tcg'])),
          acceleratorReason: Type.Optional(Type.String()),
          version: Type.Optional(Type.String({ description: 'Of macfleetd.' })),
          qemuVersion: Type.Optional(Type.String()),
          kernel: Type.Optional(Type.String()),
          arch: Type.Optional(Type.String()),
          cpuModel: Type.Optional(Type.String()),
          address: Type.Optional(Type.String()),
          images: Type.Optional(
            Type.Array(Type.String(), { description: 'Digests of the images it holds.' }),
          ),
          missingContainment: Type.Optional(
            Type.Array(Type.String(), { description: 'What guests are not confined by, and why.' }),
          ),
          conditions: Type.Optional(Type.Array(conditionSchema)),
        },
        { ...strict, description: 'What the host measured of itself. Ours.' },
      ),
    ),
  },
  { ...strict, description: 'A machine that runs virtual machines.' },
)

/** A machine that runs virtual machines. */
export type Host = Static<typeof hostSchema>
/** Cores, memory, disk and machines. */
export type Amounts = NonNullable<NonNullable<Host['status']>['capacity']>

const percent = (fraction: number | undefined): string =>
  fraction === undefined ? '' : `${Math.round(fraction * 100)}%`

const ratio = (part: number | undefined, whole: number | undefined): string =>
  part === undefined || whole === undefined
    ? ''
    : `${approximateBytes(part)}/${approximateBytes(whole)}`

function hostState(host: Host): string {
  const ready = findCondition(host.status?.conditions, 'Ready')?.status === 'True'
  const words = [ready ? 'Ready' : 'NotReady']
  if (!host.spec.schedulable) words.push('SchedulingDisabled')
  return words.join(',')
}

/** What is known of the kind Host. */
export const hostKind: Kind<Host> = {
  kind: 'Host',
  group: 'macfleet.dev',
  version: 'v1',
  plural: 'hosts',
  singular: 'host',
  shortNames: [],
  namespaced: false,
  description: 'A machine that runs virtual machines.',
  schema: hostSchema,
  hasStatus: true,
  columns: [
    nameColumn,
    {
      name: 'Status',
      description: 'Whether it is ready and takes new machines.',
      type: 'string',
      priority: 0,
      cell: hostState,
    },
    {
      name: 'Machines',
      description: 'Virtual machines it has been given.',
      type: 'integer',
      priority: 0,
      cell: host => host.status?.reserved?.machines ?? 0,
    },
    {
      name: 'CPU',
      description: 'Busy share of all cores.',
      type: 'string',
      priority: 0,
      cell: host => percent(host.status?.usage?.cpuFraction),
    },
    {
      name: 'Memory',
      description: 'Memory in use of memory there.',
      type: 'string',
      priority: 0,
      cell: host => ratio(host.status?.usage?.memoryBytes, host.status?.capacity?.memoryBytes),
    },
    {
      name: 'Disk',
      description: 'Disk in use of disk there.',
      type: 'string',
      priority: 0,
      cell: host => ratio(host.status?.usage?.diskBytes, host.status?.capacity?.diskBytes),
    },
    {
      name: 'Accelerator',
      description: 'How its guests are executed.',
      type: 'string',
      priority: 0,
      cell: host => host.status?.accelerator ?? '',
    },
    {
      name: 'Age',
      description: 'Time since it was first seen.',
      type: 'string',
      priority: 0,
      cell: (host, nowMs) => formatAge(nowMs - Date.parse(host.metadata.creationTimestamp ?? '')),
    },
    {
      name: 'Version',
      description: 'Of macfleetd.',
      type: 'string',
      priority: 1,
      cell: host => host.status?.version ?? '',
    },
    {
      name: 'QEMU',
      description: 'Version of QEMU.',
      type: 'string',
      priority: 1,
      cell: host => host.status?.qemuVersion ?? '',
    },
    {
      name: 'Kernel',
      description: 'Version of the kernel.',
      type: 'string',
      priority: 1,
      cell: host => host.status?.kernel ?? '',
    },
    {
      name: 'Load',
      description: 'Load average over a minute.',
      type: 'string',
      priority: 1,
      cell: host => host.status?.usage?.load1.toFixed(2) ?? '',
    },
  ],
}
