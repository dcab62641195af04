import { access, constants, readFile, stat, statfs } from 'node:fs/promises'
import { delimiter, join } from 'node:path'
import { runCommand } from '../../base/command.ts'
import { isErrno } from '../../base/files.ts'
import { approximateBytes } from '../../resources/quantity.ts'

/** What a check found. `missing` is essential: without it no guest runs, or you can't reach it. */
export interface Finding {
  subject: string
  level: 'ok' | 'warning' | 'missing'
  detail: string
  /** The exact command that gets it. */
  remedy?: string
}

/** Where to look; the machine's own places by default. */
export interface HostPlaces {
  /** Folders of programs, divided by colons. */
  path: string
  kvm: string
  cpuinfo: string
  /** Files of which one must be there for UEFI guests. */
  firmware: readonly string[]
  /** A folder on the file system that holds guests' disks. */
  data: string
}

/** The places of a Debian machine. */
export function hostPlaces(environment: Readonly<Record<string, string | undefined>>): HostPlaces {
  // nft and its like lie where only root's PATH looks.
  const path = [environment['PATH'] ?? '', '/usr/sbin', '/sbin'].join(delimiter)
  const firmware = ['/usr/share/OVMF/OVMF_CODE_4M.fd', '/usr/share/OVMF/OVMF_CODE.fd']
  return { path, kvm: '/dev/kvm', cpuinfo: '/proc/cpuinfo', firmware, data: '/var/lib' }
}

interface Program {
  name: string
  package: string
  /** What for. */
  purpose: string
  essential: boolean
  /** Prints its version. */
  versionFlag?: string
}

const programs: readonly Program[] = [
  {
    name: 'qemu-system-x86_64',
    package: 'qemu-system-x86',
    purpose: 'runs guests',
    essential: true,
    versionFlag: '--version',
  },
  {
    name: 'qemu-img',
    package: 'qemu-utils',
    purpose: 'makes disks',
    essential: true,
    versionFlag: '--version',
  },
  {
    name: 'etcd',
    package: 'etcd-server',
    purpose: 'holds the store of a fleet',
    essential: false,
    versionFlag: '--version',
  },
  {
    name: 'genisoimage',
    package: 'genisoimage',
    purpose: 'brings SSH keys and user data into guests',
    essential: true,
    versionFlag: '--version',
  },
  { name: 'setpriv', package: 'util-linux', purpose: 'takes rights from QEMU', essential: true },
  {
    name: 'ssh',
    package: 'openssh-client',
    purpose: 'macfleet ssh and cp',
    essential: true,
    versionFlag: '-V',
  },
  { name: 'ssh-keygen', package: 'openssh-client', purpose: 'makes your key', essential: true },
  {
    name: 'nft',
    package: 'nftables',
    purpose: "keeps guests off this host's networks",
    essential: false,
    versionFlag: '--version',
  },
]

/** Checks the machine that this runs on, whether or not a daemon does. */
export async function checkHost(places: HostPlaces): Promise<Finding[]> {
  return [
    ...(await Promise.all(programs.map(program => checkProgram(program, places)))),
    await checkFirmware(places),
    await checkKvm(places),
    await checkDisk(places.data),
  ]
}

async function checkProgram(program: Program, places: HostPlaces): Promise<Finding> {
  const { name, purpose, essential, versionFlag } = program
  const path = await findProgram(name, places.path)
  if (path === undefined) {
    const remedy = `sudo apt-get install --no-install-recommends ${program.package}`
    const level = essential ? 'missing' : 'warning'
    return { subject: name, level, detail: `not there; it ${purpose}`, remedy }
  }
  const version = versionFlag === undefined ? '' : await versionOf(path, versionFlag)
  return { subject: name, level: 'ok', detail: version === '' ? path : `${path}, ${version}` }
}

async function findProgram(name: string, path: string): Promise<string | undefined> {
  for (const folder of path.split(delimiter).filter(part => part !== '')) {
    const candidate = join(folder, name)
    try {
      await access(candidate, constants.X_OK)
      return candidate
    } catch {
      // Not in this folder.
    }
  }
  return undefined
}

async function versionOf(path: string, flag: string): Promise<string> {
  try {
    const options = { timeoutMs: 5_000, acceptedCodes: [0, 1, 255] }
    const { stdout, stderr } = await runCommand(path, [flag], options)
    return /\d+\.\d+[\w.]*/.exec(stdout || stderr)?.[0] ?? ''
  } catch {
    return ''
  }
}

async function isReadable(path: string): Promise<boolean> {
  try {
    await access(path, constants.R_OK)
    return true
  } catch {
    return false
  }
}

async function checkFirmware({ firmware }: HostPlaces): Promise<Finding> {
  for (const path of firmware) {
    if (await isReadable(path)) return { subject: 'OVMF', level: 'ok', detail: path }
  }
  const remedy = 'sudo apt-get install --no-install-recommends ovmf'
  return { subject: 'OVMF', level: 'warning', detail: 'not there; UEFI guests need it', remedy }
}

async function checkKvm({ kvm, cpuinfo }: HostPlaces): Promise<Finding> {
  const subject = 'KVM'
  const level = 'warning'
  const slow = 'guests are emulated, which is many times slower'
  try {
    await access(kvm, constants.R_OK | constants.W_OK)
  } catch (error) {
    if (!isErrno(error, 'ENOENT')) {
      const remedy = 'sudo usermod -aG kvm $USER, then log in again; the daemon as root has no need'
      return { subject, level, detail: `you may not open ${kvm}`, remedy }
    }
    const remedy = 'Turn on VT-x or AMD-V in the firmware, then: sudo modprobe kvm-intel or kvm-amd'
    return { subject, level, detail: `there is no ${kvm}; ${slow}`, remedy }
  }
  const flags = await readFile(cpuinfo, 'utf8').catch(() => '')
  if (/^flags\s*:.*\b(vmx|svm)\b/m.test(flags)) return { subject, level: 'ok', detail: kvm }
  const detail = `${kvm} opens, but the processor shows neither vmx nor svm; ${slow}`
  const remedy = 'In a virtual machine: turn on nested virtualization where it runs'
  return { subject, level, detail, remedy }
}

const GiB = 2 ** 30

async function checkDisk(folder: string): Promise<Finding> {
  const { bavail, bsize } = await statfs(folder)
  const freeBytes = bavail * bsize
  const subject = 'free disk'
  const detail = `${approximateBytes(freeBytes)} at ${folder}`
  if (freeBytes >= 5 * GiB) return { subject, level: 'ok', detail }
  const remedy = 'Remove what is not needed: macfleet image prune'
  return { subject, level: freeBytes < GiB ? 'missing' : 'warning', detail, remedy }
}

/** Whether a socket is there, and whose it is. */
export async function checkSocket(path: string, groups: readonly number[]): Promise<Finding> {
  const subject = 'socket'
  try {
    const { gid, uid, mode } = await stat(path)
    const me = process.getuid?.() ?? 0
    const mine = me === 0 || uid === me || (groups.includes(gid) && (mode & 0o020) !== 0)
    if (mine) return { subject, level: 'ok', detail: path }
    const remedy = 'sudo usermod -aG macfleet $USER, then log in again'
    return { subject, level: 'missing', detail: `${path} is not yours nor your group's`, remedy }
  } catch (error) {
    const detail = isErrno(error, 'ENOENT') ? `there is no ${path}` : `${path} can not be looked at`
    const remedy = 'sudo systemctl start macfleetd, or in a checkout: script/quickstart'
    return { subject, level: 'warning', detail, remedy }
  }
}
