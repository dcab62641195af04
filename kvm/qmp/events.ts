import { type Static, type TObject, Type } from 'typebox'
import { Check } from 'typebox/value'

const none = Type.Object({})
const optional = Type.Optional

const shutdownCause = Type.Object({
  /** True when the guest did it itself. */
  guest: Type.Boolean(),
  /** ShutdownCause, for example `guest-shutdown` or `host-qmp-quit`. */
  reason: Type.String(),
})

const progress = {
  type: Type.String(),
  device: Type.String(),
  len: Type.Integer(),
  offset: Type.Integer(),
  speed: Type.Integer(),
}

/** Every event that macfleet acts on (QEMU QMP reference manual), by name. */
export const qmpEvents = {
  STOP: none,
  RESUME: none,
  SUSPEND: none,
  SUSPEND_DISK: none,
  WAKEUP: none,
  POWERDOWN: none,
  RESET: shutdownCause,
  SHUTDOWN: shutdownCause,
  GUEST_PANICKED: Type.Object({ action: Type.String() }),
  GUEST_CRASHLOADED: Type.Object({ action: Type.String() }),
  WATCHDOG: Type.Object({ action: Type.String() }),
  BLOCK_IO_ERROR: Type.Object({
    device: Type.String(),
    'node-name': optional(Type.String()),
    operation: Type.Enum(['read', 'write']),
    action: Type.Enum(['ignore', 'report', 'stop']),
    nospace: optional(Type.Boolean()),
    reason: Type.String(),
  }),
  BLOCK_IMAGE_CORRUPTED: Type.Object({
    device: Type.String(),
    'node-name': optional(Type.String()),
    msg: Type.String(),
    fatal: Type.Boolean(),
  }),
  BLOCK_JOB_READY: Type.Object(progress),
  BLOCK_JOB_COMPLETED: Type.Object({ ...progress, error: optional(Type.String()) }),
  BLOCK_JOB_CANCELLED: Type.Object(progress),
  BLOCK_JOB_ERROR: Type.Object({
    device: Type.String(),
    operation: Type.Enum(['read', 'write']),
    action: Type.Enum(['ignore', 'report', 'stop']),
  }),
  JOB_STATUS_CHANGE: Type.Object({ id: Type.String(), status: Type.String() }),
  DEVICE_DELETED: Type.Object({ device: optional(Type.String()), path: Type.String() }),
  DEVICE_UNPLUG_GUEST_ERROR: Type.Object({ device: optional(Type.String()), path: Type.String() }),
  /** A program in the guest opened or closed a virtio-serial port. */
  VSERPORT_CHANGE: Type.Object({ id: Type.String(), open: Type.Boolean() }),
  BALLOON_CHANGE: Type.Object({ actual: Type.Integer() }),
  MIGRATION: Type.Object({ status: Type.String() }),
} satisfies Record<string, TObject>

/** The name of an event that we know. */
export type QmpEventName = keyof typeof qmpEvents

type KnownEvent = {
  [Name in QmpEventName]: {
    event: Name
    data: Static<(typeof qmpEvents)[Name]>
    /** QEMU's wall clock when it happened, in milliseconds since the epoch. */
    timestampMs: number
  }
}[QmpEventName]

/** An event that is not in the list, or does not look as it should. */
export interface UnknownEvent {
  event: 'UNKNOWN'
  name: string
  data: unknown
  timestampMs: number
}

/** Something that QEMU said of its own accord. */
export type QmpEvent = KnownEvent | UnknownEvent

/** Gives an event its type; one that we don't know, or whose data are wrong, becomes `UNKNOWN`. */
export function toEvent(name: string, data: unknown, timestampMs: number): QmpEvent {
  const event = { event: name, data, timestampMs }
  return isKnown(event) ? event : { event: 'UNKNOWN', name, data, timestampMs }
}

function isKnown(event: {
  event: string
  data: unknown
  timestampMs: number
}): event is KnownEvent {
  if (!Object.hasOwn(qmpEvents, event.event)) return false
  return Check(qmpEvents[event.event as QmpEventName], event.data)
}
