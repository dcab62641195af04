import { chmod, mkdir, readlink, rename, rm, symlink } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { assert, failure } from '../base/errors.ts'
import { isErrno, makeFolder } from '../base/files.ts'
import { setOwner, type UserIdentity } from './guest-user.ts'

/** Where the folders of all guests of one daemon lie. */
export interface GuestRoots {
  /** On disk, kept across reboots; for example `/var/lib/macfleet/guests`. */
  dataRoot: string
  /** Short and lost at a reboot; for example `/run/macfleet/guests`. */
  runRoot: string
}

/**
 * A guest's files as QEMU names them: relative to the guest's folder, which is QEMU's working
 * folder. The guardian enters the folder before it gives up its rights, so the folders above may
 * stay closed to the guest's user, and no path is ever too long to bind a socket to.
 */
export const guestFiles = {
  base: 'base.raw',
  image: 'image.sock',
  kernel: 'kernel',
  initrd: 'initrd',
  opencore: 'opencore.raw',
  smcKey: 'smc-key.conf',
  disk: 'guest/disk.qcow2',
  nvram: 'guest/nvram.qcow2',
  snapshot: 'guest/snapshot.qcow2',
  seed: 'guest/seed.iso',
  consoleLog: 'guest/console.log',
  qmp: 'guest/qmp.sock',
  qmpWatch: 'guest/qmp-watch.sock',
  console: 'guest/console.sock',
  agent: 'guest/agent.sock',
  vnc: 'guest/vnc.sock',
} as const

/**
 * Every path of one guest.
 *
 * Outer folder (`path`): the daemon's, 0711; the guest's user may pass through and read what is
 * named `Read by QEMU`, and can neither write, replace nor list anything. Inner folder (`guest`):
 * 0700, the guest's user. What lies there may be anything, symbolic links and pipes too, once a
 * guest has broken out into its QEMU: open it with `openGuestFile`, never by its name alone.
 */
export interface GuestFolder {
  /** The VM's metadata.uid. */
  uid: string
  /** The outer folder, and QEMU's working folder. */
  path: string
  /** guest.json: how the daemon launched this guest. */
  record: string
  /** exit.json: how QEMU ended, written by the guardian. */
  exit: string
  /** What the seed was made from, as a digest. */
  seedDigest: string
  /** QEMU's standard error, written by the guardian. */
  stderr: string
  /** The image's raw file, as a hard link. Read by QEMU. */
  base: string
  /** The export of an image that is still on its way: a socket. Read by QEMU. */
  image: string
  /** The kernel for a direct boot. Read by QEMU. */
  kernel: string
  /** The initial RAM disk for a direct boot. Read by QEMU. */
  initrd: string
  /** macOS: the boot disk, as a hard link. Read by QEMU. */
  opencore: string
  /** macOS: the SMC device with its key, as a QEMU configuration file. Read by QEMU. */
  smcKey: string
  /** The inner folder. */
  guest: string
  /** The overlay that the guest writes. */
  disk: string
  /** The guest's UEFI variables. */
  nvram: string
  /** The disk as it was at one moment, while somebody needs it (disk-snapshot.ts). */
  snapshot: string
  /** The NoCloud seed. */
  seed: string
  /** What the serial console said; appended to by QEMU. */
  consoleLog: string
  /** A short name of the inner folder (a symbolic link in runRoot), for sockets. */
  sockets: string
  /** QMP, for commands. */
  qmp: string
  /** QMP, for whoever watches: one socket takes one client at a time. */
  qmpWatch: string
  /** The serial console. */
  console: string
  /** The guest agent's virtio-serial port. */
  agent: string
  /** RFB (VNC). */
  vnc: string
}

/** Bytes of the longest path of a unix socket: sun_path without its final zero (unix(7)). */
const socketPathBytesMax = 107

/**
 * Every path of the guest `uid`. Touches nothing.
 * @param uid the VM's metadata.uid, a UUID in lower case
 * @throws socketPathTooLong
 */
export function guestFolder(roots: GuestRoots, uid: string): GuestFolder {
  assert(/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(uid), `not a VM's uid: ${uid}`)
  const path = join(roots.dataRoot, uid)
  const sockets = join(roots.runRoot, uid.replaceAll('-', '').slice(0, 12))
  const inside = (file: string) => join(path, file)
  const socket = (file: string) => socketPath(sockets, file)
  return {
    uid,
    path,
    record: inside('guest.json'),
    exit: inside('exit.json'),
    seedDigest: inside('seed.sha256'),
    stderr: inside('stderr.log'),
    base: inside(guestFiles.base),
    image: inside(guestFiles.image),
    kernel: inside(guestFiles.kernel),
    initrd: inside(guestFiles.initrd),
    opencore: inside(guestFiles.opencore),
    smcKey: inside(guestFiles.smcKey),
    guest: inside('guest'),
    disk: inside(guestFiles.disk),
    nvram: inside(guestFiles.nvram),
    snapshot: inside(guestFiles.snapshot),
    seed: inside(guestFiles.seed),
    consoleLog: inside(guestFiles.consoleLog),
    sockets,
    qmp: socket(guestFiles.qmp),
    qmpWatch: socket(guestFiles.qmpWatch),
    console: socket(guestFiles.console),
    agent: socket(guestFiles.agent),
    vnc: socket(guestFiles.vnc),
  }
}

function socketPath(sockets: string, file: string): string {
  const path = join(sockets, file.slice('guest/'.length))
  const lengthBytes = Buffer.byteLength(path)
  if (lengthBytes > socketPathBytesMax) {
    throw failure('socketPathTooLong', { path, lengthBytes, limitBytes: socketPathBytesMax })
  }
  return path
}

/**
 * Makes a guest's folders and the short name of its sockets; what is there already stays. To be
 * called before every start and before a guest is adopted, because runRoot is empty after a reboot.
 * @param owner whom QEMU runs as; undefined when that is the daemon's own user
 */
export async function makeGuestFolder(
  folder: GuestFolder,
  owner: UserIdentity | undefined,
): Promise<void> {
  makeFolder(dirname(folder.path))
  await makeFolderOnce(folder.path, 0o711)
  await makeFolderOnce(folder.guest, 0o700)
  await setOwner(folder.guest, owner)
  makeFolder(dirname(folder.sockets))
  if (await isLinkTo(folder.sockets, folder.guest)) return
  const temporary = `${folder.sockets}.${process.pid}.tmp`
  await rm(temporary, { force: true })
  await symlink(folder.guest, temporary)
  await rename(temporary, folder.sockets)
}

async function makeFolderOnce(path: string, mode: number): Promise<void> {
  try {
    await mkdir(path)
    // The daemon's umask has no say in what the guest's user may pass.
    await chmod(path, mode)
  } catch (error) {
    if (!isErrno(error, 'EEXIST')) throw error
  }
}

async function isLinkTo(path: string, target: string): Promise<boolean> {
  try {
    return (await readlink(path)) === target
  } catch {
    return false
  }
}

/** Removes everything of a guest. To be called when its QEMU has ended. */
export async function removeGuestFolder(folder: GuestFolder): Promise<void> {
  await rm(folder.sockets, { force: true })
  await rm(folder.path, { recursive: true, force: true })
}
