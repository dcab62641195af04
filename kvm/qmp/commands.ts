import { type Static, type TObject, type TSchema, Type } from 'typebox'
import { blockCommands } from './block-commands.ts'
import { migrationCommands } from './migration-commands.ts'

/** One command: the schema of its arguments and of what it returns. */
interface CommandSchema {
  arguments: TObject
  returns: TSchema
}

const none = Type.Object({})
const optional = Type.Optional

/**
 * What a machine is doing (QEMU QMP reference, RunState). Because our guests are started with
 * `-action shutdown=pause,panic=pause`, `shutdown` is a guest that powered itself off and
 * `guest-panicked` one whose kernel gave up; both stay until somebody resets or ends them.
 */
export const runStateSchema = Type.Enum([
  'debug',
  'inmigrate',
  'internal-error',
  'io-error',
  'paused',
  'postmigrate',
  'prelaunch',
  'finish-migrate',
  'restore-vm',
  'running',
  'save-vm',
  'shutdown',
  'suspended',
  'watchdog',
  'guest-panicked',
  'colo',
])

/** QEMU's RunState. */
export type RunState = Static<typeof runStateSchema>

const deviceOptions = Type.Object({
  driver: Type.String(),
  id: optional(Type.String()),
  bus: optional(Type.String()),
})

/** What `device_add` takes: the driver's own properties beside these three. */
export type DeviceOptions = Static<typeof deviceOptions> & { [property: string]: unknown }

const vncClient = Type.Object({
  host: Type.String(),
  service: Type.String(),
  websocket: Type.Boolean(),
})

const machineCommands = {
  /** Leaves the negotiation that every connection begins in. */
  qmp_capabilities: { arguments: none, returns: none },
  'query-version': {
    arguments: none,
    returns: Type.Object({
      qemu: Type.Object({ major: Type.Integer(), minor: Type.Integer(), micro: Type.Integer() }),
      package: Type.String(),
    }),
  },
  /** Every command, event and type of this QEMU; about 200 KB. */
  'query-qmp-schema': {
    arguments: none,
    returns: Type.Array(Type.Object({ name: Type.String(), 'meta-type': Type.String() })),
  },
  'query-status': {
    arguments: none,
    returns: Type.Object({ running: Type.Boolean(), status: runStateSchema }),
  },
  'query-kvm': {
    arguments: none,
    returns: Type.Object({ enabled: Type.Boolean(), present: Type.Boolean() }),
  },
  'query-cpus-fast': {
    arguments: none,
    returns: Type.Array(
      Type.Object({
        'cpu-index': Type.Integer(),
        'qom-path': Type.String(),
        'thread-id': Type.Integer(),
      }),
    ),
  },
  /** `frontend-open` of a virtio-serial port tells whether a program in the guest has it open. */
  'query-chardev': {
    arguments: none,
    returns: Type.Array(
      Type.Object({
        label: Type.String(),
        filename: Type.String(),
        'frontend-open': Type.Boolean(),
      }),
    ),
  },
  /** Presses the power button (ACPI); the guest may ignore it. */
  system_powerdown: { arguments: none, returns: none },
  /** Asks for a reset, which happens soon after the answer: the RESET event tells when. */
  system_reset: { arguments: none, returns: none },
  /** Ends QEMU at once, whatever `-action shutdown` says. */
  quit: { arguments: none, returns: none },
  /** Stops the virtual CPUs. */
  stop: { arguments: none, returns: none },
  /** Lets the virtual CPUs run. */
  cont: { arguments: none, returns: none },
  /** Non-maskable interrupt: most kernels panic or dump their memory. */
  'inject-nmi': { arguments: none, returns: none },
  /** Asks the guest to shrink or grow to `value` bytes. */
  balloon: { arguments: Type.Object({ value: Type.Integer() }), returns: none },
  'query-balloon': { arguments: none, returns: Type.Object({ actual: Type.Integer() }) },
  device_add: { arguments: Type.Unsafe<DeviceOptions>(deviceOptions), returns: none },
  /** Asks the guest to let a device go: DEVICE_DELETED tells when it did. */
  device_del: { arguments: Type.Object({ id: Type.String() }), returns: none },
  /** Writes the screen's picture to a file, as QEMU's user. */
  screendump: {
    arguments: Type.Object({
      filename: Type.String(),
      device: optional(Type.String()),
      format: optional(Type.Enum(['ppm', 'png'])),
    }),
    returns: none,
  },
  'query-vnc': {
    arguments: none,
    returns: Type.Object({
      enabled: Type.Boolean(),
      host: optional(Type.String()),
      service: optional(Type.String()),
      auth: optional(Type.String()),
      clients: optional(Type.Array(vncClient)),
    }),
  },
  set_password: {
    arguments: Type.Object({
      protocol: Type.Enum(['vnc']),
      password: Type.String(),
      connected: optional(Type.Enum(['keep', 'fail', 'disconnect'])),
    }),
    returns: none,
  },
  /** `time`: `now`, `never`, `+seconds` or seconds since the epoch. */
  expire_password: {
    arguments: Type.Object({ protocol: Type.Enum(['vnc']), time: Type.String() }),
    returns: none,
  },
} satisfies Record<string, CommandSchema | { arguments: TSchema; returns: TSchema }>

/**
 * Every QMP command that macfleet uses (QEMU QMP reference manual, checked against QEMU 7.2's own
 * schema by test/real/qmp-schema.test.ts). The types below and that check come from these schemas,
 * so they can't drift apart. Only what we read of a returned object is described; the rest is
 * ignored.
 */
export const qmpCommands = { ...machineCommands, ...blockCommands, ...migrationCommands }

/** The name of a command. */
export type QmpCommandName = keyof typeof qmpCommands

/** A command that only tells and changes nothing. */
export type QmpQueryName = Extract<QmpCommandName, `query-${string}`>

/** Commands on the block graph of a guest that runs, and on the jobs that work on it. */
export type QmpBlockName = Extract<
  QmpCommandName,
  `blockdev-${string}` | `block-job-${string}` | `job-${string}`
>

/** What a command takes. */
export type QmpArguments<Name extends QmpCommandName> = Static<
  (typeof qmpCommands)[Name]['arguments']
>

/** What a command gives back. */
export type QmpReturns<Name extends QmpCommandName> = Static<(typeof qmpCommands)[Name]['returns']>
