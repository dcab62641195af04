import { type Static, Type } from 'typebox'

const none = Type.Object({})
const optional = Type.Optional

const blockNode = Type.Object({
  driver: Type.String(),
  'node-name': optional(Type.String()),
  'read-only': optional(Type.Boolean()),
  'auto-read-only': optional(Type.Boolean()),
  'force-share': optional(Type.Boolean()),
  discard: optional(Type.Enum(['ignore', 'unmap'])),
  'detect-zeroes': optional(Type.Enum(['off', 'on', 'unmap'])),
  cache: optional(
    Type.Object({ direct: optional(Type.Boolean()), 'no-flush': optional(Type.Boolean()) }),
  ),
})

/** A node of the block graph (BlockdevOptions): the driver's own options beside the common ones. */
export type BlockNodeOptions = Static<typeof blockNode> & { [option: string]: unknown }

const blockNodeOptions = Type.Unsafe<BlockNodeOptions>(blockNode)

const errorPolicy = Type.Enum(['report', 'ignore', 'enospc', 'stop'])
const ioStatus = Type.Enum(['ok', 'failed', 'nospace'])

const image = Type.Object({
  filename: Type.String(),
  format: Type.String(),
  'virtual-size': Type.Integer(),
  'actual-size': optional(Type.Integer()),
  'cluster-size': optional(Type.Integer()),
  'backing-filename': optional(Type.String()),
})

const blockNodeInfo = Type.Object({
  file: Type.String(),
  'node-name': optional(Type.String()),
  ro: Type.Boolean(),
  drv: Type.String(),
  backing_file: optional(Type.String()),
  backing_file_depth: Type.Integer(),
  image,
})

const blockStatistics = Type.Object({
  device: optional(Type.String()),
  qdev: optional(Type.String()),
  'node-name': optional(Type.String()),
  stats: Type.Object({
    rd_bytes: Type.Integer(),
    wr_bytes: Type.Integer(),
    rd_operations: Type.Integer(),
    wr_operations: Type.Integer(),
    flush_operations: Type.Integer(),
    rd_total_time_ns: Type.Integer(),
    wr_total_time_ns: Type.Integer(),
    wr_highest_offset: Type.Integer(),
    failed_rd_operations: Type.Integer(),
    failed_wr_operations: Type.Integer(),
  }),
})

const jobStatus = Type.Enum([
  'undefined',
  'created',
  'running',
  'paused',
  'ready',
  'standby',
  'waiting',
  'pending',
  'aborting',
  'concluded',
  'null',
])

const jobOptions = {
  'job-id': optional(Type.String()),
  device: Type.String(),
  speed: optional(Type.Integer()),
  'filter-node-name': optional(Type.String()),
  'auto-finalize': optional(Type.Boolean()),
  'auto-dismiss': optional(Type.Boolean()),
}

/** Commands on block nodes and the jobs that work on them. */
export const blockCommands = {
  'query-block': {
    arguments: none,
    returns: Type.Array(
      Type.Object({
        device: Type.String(),
        qdev: optional(Type.String()),
        removable: Type.Boolean(),
        locked: Type.Boolean(),
        inserted: optional(blockNodeInfo),
        'io-status': optional(ioStatus),
      }),
    ),
  },
  /** `flat`: without the chain of backing images below each node. */
  'query-named-block-nodes': {
    arguments: Type.Object({ flat: optional(Type.Boolean()) }),
    returns: Type.Array(blockNodeInfo),
  },
  /** `query-nodes`: of every named node instead of every device. */
  'query-blockstats': {
    arguments: Type.Object({ 'query-nodes': optional(Type.Boolean()) }),
    returns: Type.Array(blockStatistics),
  },
  'query-block-jobs': {
    arguments: none,
    returns: Type.Array(
      Type.Object({
        type: Type.String(),
        device: Type.String(),
        len: Type.Integer(),
        offset: Type.Integer(),
        busy: Type.Boolean(),
        paused: Type.Boolean(),
        ready: Type.Boolean(),
        speed: Type.Integer(),
        status: jobStatus,
        'io-status': ioStatus,
        error: optional(Type.String()),
      }),
    ),
  },
  'query-jobs': {
    arguments: none,
    returns: Type.Array(
      Type.Object({
        id: Type.String(),
        type: Type.String(),
        status: jobStatus,
        'current-progress': Type.Integer(),
        'total-progress': Type.Integer(),
        error: optional(Type.String()),
      }),
    ),
  },
  'job-dismiss': { arguments: Type.Object({ id: Type.String() }), returns: none },
  'blockdev-add': { arguments: blockNodeOptions, returns: none },
  'blockdev-del': { arguments: Type.Object({ 'node-name': Type.String() }), returns: none },
  /** Gives nodes new options; an option left out falls back to its default. */
  'blockdev-reopen': {
    arguments: Type.Object({ options: Type.Array(blockNodeOptions) }),
    returns: none,
  },
  /** Copies what a node's backing chain holds into the node. */
  'block-stream': {
    arguments: Type.Object({
      ...jobOptions,
      'base-node': optional(Type.String()),
      bottom: optional(Type.String()),
      'backing-file': optional(Type.String()),
      'on-error': optional(errorPolicy),
    }),
    returns: none,
  },
  /** Writes what overlays hold down into a node below. */
  'block-commit': {
    arguments: Type.Object({
      ...jobOptions,
      'base-node': optional(Type.String()),
      'top-node': optional(Type.String()),
      'backing-file': optional(Type.String()),
      'on-error': optional(errorPolicy),
    }),
    returns: none,
  },
  /** Puts the node `overlay` on top of `node`, atomically. */
  'blockdev-snapshot': {
    arguments: Type.Object({ node: Type.String(), overlay: Type.String() }),
    returns: none,
  },
  'blockdev-mirror': {
    arguments: Type.Object({
      ...jobOptions,
      target: Type.String(),
      replaces: optional(Type.String()),
      granularity: optional(Type.Integer()),
      sync: Type.Enum(['top', 'full', 'none']),
      'copy-mode': optional(Type.Enum(['background', 'write-blocking'])),
      'on-source-error': optional(errorPolicy),
      'on-target-error': optional(errorPolicy),
    }),
    returns: none,
  },
  'block-job-cancel': {
    arguments: Type.Object({ device: Type.String(), force: optional(Type.Boolean()) }),
    returns: none,
  },
  'block-job-complete': { arguments: Type.Object({ device: Type.String() }), returns: none },
  /** `size`: bytes. */
  block_resize: {
    arguments: Type.Object({ 'node-name': optional(Type.String()), size: Type.Integer() }),
    returns: none,
  },
}
