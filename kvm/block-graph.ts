import { assert } from '../base/errors.ts'
import { guestFiles } from './guest-folder.ts'
import type { GuestLaunch, HostFacts, MachineProfile } from './machine.ts'

/** Names of the block nodes that others speak to by QMP. */
export const blockNodes = {
  /** The overlay: what the guest sees as its disk. */
  disk: 'disk',
  /** The image behind it. */
  base: 'base',
} as const

/** A node for QEMU's -blockdev (QEMU QAPI, BlockdevOptions). */
export interface BlockNode {
  driver: string
  'node-name': string
  [option: string]: string | boolean | null | { [option: string]: boolean }
}

/**
 * `threads` and not `io_uring`: it works on every kernel and in every container. Writeback keeps
 * the image's pages once for all guests that read them; a guest's flush still reaches the disk.
 */
const fileOptions = { aio: 'threads', cache: { direct: false, 'no-flush': false } }

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
    ...(launch.base ? readOnlyNodes(blockNodes.base, guestFiles.base) : []),
    {
      driver: 'file',
      'node-name': 'disk-file',
      filename: guestFiles.disk,
      discard: 'unmap',
      ...fileOptions,
    },
    {
      driver: 'qcow2',
      'node-name': blockNodes.disk,
      file: 'disk-file',
      backing: launch.base ? blockNodes.base : null,
      discard: 'unmap',
      'detect-zeroes': 'unmap',
    },
    ...(launch.seed ? readOnlyNodes('seed', guestFiles.seed) : []),
  ]
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
