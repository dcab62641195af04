import Type, { type Static } from 'typebox'
import { conditionSchema, findCondition } from './condition.ts'
import { formatAge, parseDurationMs } from './duration.ts'
import { type Kind, nameColumn } from './kind.ts'
import { metadataSchema } from './metadata.ts'
import { approximateBytes, parseQuantity, quantitySchema, quantityValue } from './quantity.ts'

const strict = { additionalProperties: false }

const oneOf = <const Words extends string[]>(
  words: readonly [...Words],
  description: string,
  fallback?: Words[number],
) => Type.Enum(words, { description, ...(fallback === undefined ? {} : { default: fallback }) })

const portSchema = Type.Object(
  {
    name: Type.Optional(Type.String({ pattern: '^[a-z0-9]([-a-z0-9]*[a-z0-9])?$', maxLength: 15 })),
    guestPort: Type.Integer({ minimum: 1, maximum: 65_535, description: 'Port inside the guest.' }),
    hostPort: Type.Optional(
      Type.Integer({
        minimum: 1,
        maximum: 65_535,
        description: 'Port on the host; without it the host chooses a free one and keeps it.',
      }),
    ),
    protocol: oneOf(['TCP', 'UDP'], 'Transport.', 'TCP'),
  },
  { ...strict, description: 'A port of the guest that can be reached through its host.' },
)

const tolerationSchema = Type.Object(
  {
    key: Type.Optional(Type.String({ maxLength: 253 })),
    operator: oneOf(['Exists', 'Equal'], 'How value is compared.', 'Equal'),
    value: Type.Optional(Type.String({ maxLength: 63 })),
    effect: Type.Optional(oneOf(['NoSchedule', 'PreferNoSchedule'], 'Which taints it answers.')),
  },
  strict,
)

const specSchema = Type.Object(
  {
    image: Type.String({
      minLength: 1,
      maxLength: 255,
      description: "The image that the disk starts from: an Image's name in this namespace.",
    }),
    cpu: quantitySchema('Cores reserved; the guest sees this many vCPUs, rounded up.', 1),
    memory: quantitySchema('Memory of the guest.', '1Gi'),
    disk: Type.Optional(
      quantitySchema("Size of the disk; the image's own size when left out, never less than that."),
    ),
    powerState: oneOf(
      ['Running', 'Stopped', 'Suspended'],
      'What the machine should be doing.',
      'Running',
    ),
    restartPolicy: oneOf(
      ['Never', 'OnFailure', 'Always'],
      'Whether a guest that ended by itself starts again: never, unless it powered itself off, always.',
      'OnFailure',
    ),
    onHostLoss: oneOf(
      ['Wait', 'Replace'],
      'When its host is lost: wait for it, or start a new copy elsewhere.',
      'Wait',
    ),
    ttl: Type.Optional(
      Type.String({
        maxLength: 40,
        description: 'Deleted this long after creation, for example 2h30m.',
      }),
    ),
    hostSelector: Type.Optional(
      Type.Record(Type.String({ maxLength: 316 }), Type.String({ maxLength: 63 }), {
        description: 'Labels that its host must have.',
      }),
    ),
    tolerations: Type.Optional(Type.Array(tolerationSchema, { maxItems: 32 })),
    spread: Type.Optional(
      Type.String({
        maxLength: 316,
        description: 'Host label over whose values copies are spread.',
      }),
    ),
    ports: Type.Optional(Type.Array(portSchema, { maxItems: 64 })),
    userData: Type.Optional(
      Type.String({
        maxLength: 262_144,
        description: 'cloud-init user data, handed to the guest on a NoCloud disk.',
      }),
    ),
    sshKeys: Type.Optional(
      Type.Array(Type.String({ maxLength: 16_384, pattern: '^[^\\r\\n]+$' }), {
        maxItems: 64,
        description: 'Public keys that may log in, one OpenSSH line each.',
      }),
    ),
    machine: oneOf(['linux', 'macos'], "The machine's shape: devices and firmware.", 'linux'),
    firmware: Type.Optional(
      oneOf(['bios', 'uefi'], "Firmware; the image's own choice when left out, else bios."),
    ),
    priority: Type.Integer({
      minimum: -1_000_000,
      maximum: 1_000_000,
      default: 0,
      description: 'Higher is placed first.',
    }),
    terminationGracePeriodSeconds: Type.Integer({
      minimum: 0,
      maximum: 3600,
      default: 30,
      description: 'How long a guest may take to shut down before it is killed.',
    }),
  },
  { ...strict, description: "What the machine should be. The user's." },
)

const timing = (description: string) => Type.Optional(Type.Integer({ minimum: 0, description }))

const statusSchema = Type.Object(
  {
    phase: oneOf(
      ['Pending', 'Pulling', 'Starting', 'Running', 'Stopped', 'Suspended', 'Failed', 'Unknown'],
      'Where the machine is in its life.',
    ),
    observedGeneration: Type.Optional(Type.Integer()),
    host: Type.Optional(Type.String({ description: 'The host it was given to.' })),
    imageDigest: Type.Optional(
      Type.String({ description: 'The content its disk started from; never changes.' }),
    ),
    address: Type.Optional(
      Type.String({ description: "The guest's own address, from its agent." }),
    ),
    ports: Type.Optional(
      Type.Array(
        Type.Object(
          {
            name: Type.Optional(Type.String()),
            guestPort: Type.Integer(),
            hostPort: Type.Integer(),
            hostAddress: Type.String(),
            protocol: oneOf(['TCP', 'UDP'], 'Transport.'),
          },
          strict,
        ),
        { description: 'Where each port can be reached.' },
      ),
    ),
    accelerator: Type.Optional(oneOf(['kvm', 'tcg'], 'How the guest is executed.')),
    restarts: Type.Optional(Type.Integer({ description: 'Starts after the first.' })),
    lastExit: Type.Optional(
      Type.Object(
        {
          reason: oneOf(
            ['GuestPoweredOff', 'GuestPanicked', 'QemuDied', 'Killed', 'GuardianLost', 'Fenced'],
            'What ended the guest.',
          ),
          message: Type.String(),
          time: Type.String(),
        },
        { ...strict, description: 'How the last run ended.' },
      ),
    ),
    bootTimings: Type.Optional(
      Type.Object(
        {
          spawnedMs: timing('QEMU was started.'),
          firmwareMs: timing('The virtual CPUs began to run firmware.'),
          firstConsoleByteMs: timing('The first byte came out of the serial console.'),
          agentMs: timing('The guest agent answered.'),
          sshMs: timing('An SSH server greeted on the forwarded port.'),
        },
        { ...strict, description: 'Milliseconds from the request to start, for the last start.' },
      ),
    ),
    conditions: Type.Optional(Type.Array(conditionSchema)),
  },
  { ...strict, description: 'What the machine is. Ours.' },
)

/** The schema of a VirtualMachine, spec and status. */
export const virtualMachineSchema = Type.Object(
  {
    apiVersion: Type.Literal('macfleet.dev/v1'),
    kind: Type.Literal('VirtualMachine'),
    metadata: metadataSchema,
    spec: specSchema,
    status: Type.Optional(statusSchema),
  },
  { ...strict, description: 'A virtual machine on one of the hosts.' },
)

/** A virtual machine on one of the hosts. */
export type VirtualMachine = Static<typeof virtualMachineSchema>
/** What a machine should be. */
export type VirtualMachineSpec = VirtualMachine['spec']
/** What a machine is. */
export type VirtualMachineStatus = NonNullable<VirtualMachine['status']>
/** Where a machine is in its life. */
export type Phase = VirtualMachineStatus['phase']
/** What ended a guest. */
export type ExitReason = NonNullable<VirtualMachineStatus['lastExit']>['reason']
/** Where a guest's port can be reached. */
export type ReachablePort = NonNullable<VirtualMachineStatus['ports']>[number]

/** Asks for a start, when its value changes, of a machine whose guest ended by itself. */
export const startedAtAnnotation = 'macfleet.dev/started-at'
/** Asks for a restart when its value changes, as `kubectl rollout restart` does. */
export const restartedAtAnnotation = 'macfleet.dev/restarted-at'

const sshAddress = (machine: VirtualMachine): string => {
  const port = machine.status?.ports?.find(candidate => candidate.guestPort === 22)
  return port === undefined ? '' : `${port.hostAddress}:${port.hostPort}`
}

function check(machine: VirtualMachine): { field: string; message: string }[] {
  const wrong: { field: string; message: string }[] = []
  const { spec } = machine
  const bounds: [string, string | number | undefined, number, number, string][] = [
    ['spec.cpu', spec.cpu, 0.01, 512, 'between 10m and 512'],
    ['spec.memory', spec.memory, 16 * 2 ** 20, 8 * 2 ** 40, 'between 16Mi and 8Ti'],
    ['spec.disk', spec.disk, 2 ** 20, 8 * 2 ** 40, 'between 1Mi and 8Ti'],
  ]
  for (const [field, value, least, most, range] of bounds) {
    if (value === undefined) continue
    const amount = parseQuantity(value)
    if (amount === undefined || amount < least || amount > most) {
      wrong.push({ field, message: `must be ${range}, not ${value}` })
    }
  }
  if (spec.ttl !== undefined && parseDurationMs(spec.ttl) === undefined) {
    wrong.push({
      field: 'spec.ttl',
      message: `must be a duration such as 90s or 2h30m, not ${spec.ttl}`,
    })
  }
  const seen = new Set<string>()
  spec.ports?.forEach((port, index) => {
    const key = `${port.protocol}/${port.guestPort}`
    if (seen.has(key)) {
      wrong.push({ field: `spec.ports[${index}].guestPort`, message: `${key} is listed twice` })
    }
    seen.add(key)
  })
  return wrong
}

/** What is known of the kind VirtualMachine. */
export const virtualMachineKind: Kind<VirtualMachine> = {
  kind: 'VirtualMachine',
  group: 'macfleet.dev',
  version: 'v1',
  plural: 'virtualmachines',
  singular: 'virtualmachine',
  shortNames: ['vm', 'vms'],
  namespaced: true,
  description: 'A virtual machine on one of the hosts.',
  schema: virtualMachineSchema,
  hasStatus: true,
  finalizer: 'macfleet.dev/guest',
  // The disk is made once, at the first start, and a guest's file is opened by its QEMU alone.
  immutable: ['spec.image', 'spec.disk', 'spec.machine', 'spec.firmware'],
  check,
  columns: [
    nameColumn,
    {
      name: 'Phase',
      description: 'Where the machine is in its life.',
      type: 'string',
      priority: 0,
      cell: machine =>
        machine.metadata.deletionTimestamp ? 'Deleting' : (machine.status?.phase ?? 'Pending'),
    },
    {
      name: 'Ready',
      description: 'Whether the guest can be reached.',
      type: 'string',
      priority: 0,
      cell: machine => findCondition(machine.status?.conditions, 'Ready')?.status ?? 'False',
    },
    {
      name: 'Host',
      description: 'The host it was given to.',
      type: 'string',
      priority: 0,
      cell: machine => machine.status?.host ?? '',
    },
    {
      name: 'SSH',
      description: 'Where its SSH port can be reached.',
      type: 'string',
      priority: 0,
      cell: sshAddress,
    },
    {
      name: 'Restarts',
      description: 'Starts after the first.',
      type: 'integer',
      priority: 0,
      cell: machine => machine.status?.restarts ?? 0,
    },
    {
      name: 'Age',
      description: 'Time since creation.',
      type: 'string',
      priority: 0,
      cell: (machine, nowMs) =>
        formatAge(nowMs - Date.parse(machine.metadata.creationTimestamp ?? '')),
    },
    {
      name: 'Image',
      description: 'The image its disk started from.',
      type: 'string',
      priority: 1,
      cell: machine => machine.spec.image,
    },
    {
      name: 'CPU',
      description: 'Cores reserved.',
      type: 'string',
      priority: 1,
      cell: machine => String(machine.spec.cpu),
    },
    {
      name: 'Memory',
      description: 'Memory of the guest.',
      type: 'string',
      priority: 1,
      cell: machine => approximateBytes(quantityValue(machine.spec.memory)),
    },
    {
      name: 'Address',
      description: "The guest's own address.",
      type: 'string',
      priority: 1,
      cell: machine => machine.status?.address ?? '',
    },
    {
      name: 'Reason',
      description: 'Why it is not ready.',
      type: 'string',
      priority: 1,
      cell: machine => {
        const ready = findCondition(machine.status?.conditions, 'Ready')
        return ready === undefined || ready.status === 'True' ? '' : ready.reason
      },
    },
  ],
}
