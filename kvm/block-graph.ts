import { assert } from '../base/errors.ts'
import { guestFiles } from './guest-folder.ts'
import type { GuestLaunch, HostFacts, MachineProfile } from './machine.ts'

/** Names of the block nodes that others speak to by QMP. */
export const blockNodes = {
  /** The overlay: what the guest sees as its disk. */
  disk: 'disk',
  /** The image behind it: its file. */
  base: 'base',
  /** The same while the image is still on its way: an export of it. */
  export: 'export',
} as const

/** A node for QEMU's -blockdev (QEMU QAPI, BlockdevOptions). */
export interface BlockNode {
  driver: string
  'node-name': string
  [option: string]: string | number | boolean | null | { [option: string]: string | boolean }
}

/**
 * `threads` and not `io_uring`: it works on every kernel and in every container. Writeback keeps
 * the image's pages once for all guests that read them; a guest's flush still reaches the disk.
 */
const fileOptions = { aio: 'threads', cache: { direct: false, 'no-flush': false } }

/**
 * Seconds that a read waits for an export which is away, before it fails and the guest is paused.
 * Below the 30 s after which drivers of guests give their disk up, and no longer than need be: as
 * long as a read waits, QEMU can't stop, snapshot or end.
 */
const exportAwaySeconds = 15
/** Seconds in which an export has to come up when QEMU starts: its daemon may have just died. */
const exportOpenSeconds = 30

/**
 * The whole block graph of a guest: every node has a name and a stated format, nothing is probed,
 * and the overlay's backing is the node that we name and never what its header says. Overlays are
 * even made without a backing name in their header (overlay.ts); QEMU 7.2 reads, discards and
 * writes zeroes through such a pair as through any other.
 * @throws assertion when firmware is `uefi` and the host's firmware is not given
 */
export function blockGraph(
  launch: GuestLaunch,
  profile: MachineProfile,
  host: HostFacts,
): BlockNode[] {
  return [
    ...(launch.firmware === 'uefi' ? firmwareNodes(host) : []),
    ...(profile.bootDisk ? readOnlyNodes('opencore', guestFiles.opencore) : []),
    ...(launch.base === 'file' ? imageFileNodes() : []),
    ...(launch.base === 'export' ? [exportNode] : []),
    {
      driver: 'file',
      'node-name': 'disk-file',
      filename: guestFiles.disk,
      discard: 'unmap',
      ...fileOptions,
    },
    overlayNode(backings[launch.base]),
    ...(launch.seed ? readOnlyNodes('seed', guestFiles.seed) : []),
  ]
}

const backings = { file: blockNodes.base, export: blockNodes.export, none: null } as const

/** The overlay over one of the other nodes. */
export function overlayNode(backing: string | null): BlockNode {
  return {
    driver: 'qcow2',
    'node-name': blockNodes.disk,
    file: 'disk-file',
    backing,
    discard: 'unmap',
    'detect-zeroes': 'unmap',
  }
}

/** The image's file (base.raw), each node after those that it needs. */
export function imageFileNodes(): BlockNode[] {
  return readOnlyNodes(blockNodes.base, guestFiles.base)
}

const exportNode: BlockNode = {
  driver: 'nbd',
  'node-name': blockNodes.export,
  server: { type: 'unix', path: guestFiles.image },
  'reconnect-delay': exportAwaySeconds,
  'open-timeout': exportOpenSeconds,
  'read-only': true,
  'auto-read-only': false,
}

function readOnlyNodes(name: string, filename: string): BlockNode[] {
  const readOnly = { 'read-only': true, 'auto-read-only': false }
  const file = `${name}-file`
  return [
    { driver: 'file', 'node-name': file, filename, ...fileOptions, ...readOnly },
    { driver: 'raw', 'node-name': name, file, ...readOnly },
  ]
}

function firmwareNodes(host: HostFacts): BlockNode[] {
  assert(host.uefi !== undefined, 'a guest with UEFI needs the firmware of its host')
  return [
    ...readOnlyNodes('firmware', host.uefi.code),
    { driver: 'file', 'node-name': 'nvram-file', filename: guestFiles.nvram },
    { driver: 'qcow2', 'node-name': 'nvram', file: 'nvram-file', backing: null },
  ]
}
