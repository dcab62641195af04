import { Type } from 'typebox'

const none = Type.Object({})
const optional = Type.Optional

/** The states of a migration (QEMU QMP reference, MigrationStatus). */
export const migrationStatusSchema = Type.Enum([
  'none',
  'setup',
  'cancelling',
  'cancelled',
  'active',
  'postcopy-active',
  'postcopy-paused',
  'postcopy-recover',
  'completed',
  'failed',
  'colo',
  'pre-switchover',
  'device',
  'wait-unplug',
])

const migrationProgress = Type.Object({
  transferred: Type.Integer(),
  remaining: Type.Integer(),
  total: Type.Integer(),
  mbps: Type.Number(),
})

/** Commands that save a guest's state to a stream and load it from one. */
export const migrationCommands = {
  'query-migrate': {
    arguments: none,
    returns: Type.Object({
      status: optional(migrationStatusSchema),
      ram: optional(migrationProgress),
      'total-time': optional(Type.Integer()),
      downtime: optional(Type.Integer()),
      'expected-downtime': optional(Type.Integer()),
      'error-desc': optional(Type.String()),
      'blocked-reasons': optional(Type.Array(Type.String())),
    }),
  },
  migrate: { arguments: Type.Object({ uri: Type.String() }), returns: none },
  /** Where the stream comes from, of a QEMU started with `-incoming defer`. */
  'migrate-incoming': { arguments: Type.Object({ uri: Type.String() }), returns: none },
  migrate_cancel: { arguments: none, returns: none },
  /** Goes on from the state where a migration waits for us, `pre-switchover` for example. */
  'migrate-continue': {
    arguments: Type.Object({ state: migrationStatusSchema }),
    returns: none,
  },
  'migrate-set-capabilities': {
    arguments: Type.Object({
      capabilities: Type.Array(
        Type.Object({
          capability: Type.Enum([
            'auto-converge',
            'events',
            'pause-before-switchover',
            'return-path',
            'x-ignore-shared',
          ]),
          state: Type.Boolean(),
        }),
      ),
    }),
    returns: none,
  },
  /** `max-bandwidth` in bytes a second, `downtime-limit` in milliseconds. */
  'migrate-set-parameters': {
    arguments: Type.Object({
      'max-bandwidth': optional(Type.Integer()),
      'downtime-limit': optional(Type.Integer()),
      'max-cpu-throttle': optional(Type.Integer()),
    }),
    returns: none,
  },
}
