import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { CommandRunner } from '../base/command.ts'
import { failure } from '../base/errors.ts'
import type { Architecture, UefiFirmware } from './machine.ts'

/** The programs to use, and what they are. */
export interface QemuPrograms {
  /** qemu-system-ARCHITECTURE. */
  system: string
  /** qemu-img. */
  image: string
  /** For example 7.2.22. */
  version: string
}

/** Which programs to look for. */
export interface QemuInit {
  architecture: Architecture
  /** A path in place of the name that is searched for in PATH. */
  system?: string
  /** A path in place of qemu-img. */
  image?: string
}

const timeoutMs = 10_000

/** The oldest QEMU whose -device takes JSON. */
const oldestVersion = [6, 2]

/**
 * Finds QEMU and asks for its version.
 * @throws commandMissing, commandFailed, or unavailable when it is too old
 */
export async function findQemu(init: QemuInit, run: CommandRunner): Promise<QemuPrograms> {
  const system = init.system ?? `qemu-system-${init.architecture}`
  const image = init.image ?? 'qemu-img'
  const [systemSays] = await Promise.all([
    run(system, ['--version'], { timeoutMs }),
    run(image, ['--version'], { timeoutMs }),
  ])
  const version = /version (\d+\.\d+\.\d+)/.exec(systemSays.stdout)?.[1]
  if (version !== undefined && isRecent(version)) return { system, image, version }
  const detail = `version ${version ?? 'unknown'}, at least ${oldestVersion.join('.')} is needed`
  throw failure('unavailable', { what: system, detail, advice: 'Install a newer QEMU' })
}

function isRecent(version: string): boolean {
  const [major = 0, minor = 0] = version.split('.').map(Number)
  const [oldestMajor = 0, oldestMinor = 0] = oldestVersion
  return major > oldestMajor || (major === oldestMajor && minor >= oldestMinor)
}

/** Where distributions describe their firmware (QEMU's docs/interop/firmware.json). */
export const firmwareFolder = '/usr/share/qemu/firmware'

/** The part of a firmware descriptor that we read. */
interface FirmwareDescriptor {
  'interface-types'?: string[]
  mapping?: {
    device?: string
    executable?: { filename?: string; format?: string }
    'nvram-template'?: { filename?: string; format?: string }
  }
  targets?: { architecture?: string; machines?: string[] }[]
  features?: string[]
}

/**
 * Finds plain UEFI firmware (flash, raw, without secure boot, which would need SMM) for machines of
 * `architecture`, in the order that the descriptors' names give.
 * @throws firmwareMissing
 */
export async function findUefi(
  architecture: Architecture,
  folder: string = firmwareFolder,
): Promise<UefiFirmware> {
  const names = await readdir(folder).catch(() => [])
  for (const name of names.filter(at => at.endsWith('.json')).sort()) {
    const firmware = uefiOf(await readDescriptor(join(folder, name)), architecture)
    if (firmware) return firmware
  }
  throw failure('firmwareMissing', { firmware: 'UEFI', looked: `no descriptor fits in ${folder}` })
}

async function readDescriptor(path: string): Promise<FirmwareDescriptor> {
  try {
    const value: unknown = JSON.parse(await readFile(path, 'utf8'))
    return typeof value === 'object' && value !== null ? value : {}
  } catch {
    return {}
  }
}

function uefiOf(
  descriptor: FirmwareDescriptor,
  architecture: Architecture,
): UefiFirmware | undefined {
  const { executable, 'nvram-template': variables, device } = descriptor.mapping ?? {}
  const features = descriptor.features ?? []
  const machine = architecture === 'x86_64' ? 'pc-q35-' : 'virt'
  const fits =
    descriptor['interface-types']?.includes('uefi') &&
    device === 'flash' &&
    executable?.format === 'raw' &&
    variables?.format === 'raw' &&
    !features.some(at => at === 'secure-boot' || at === 'requires-smm') &&
    descriptor.targets?.some(
      at => at.architecture === architecture && at.machines?.some(name => name.startsWith(machine)),
    )
  if (!fits || !executable?.filename || !variables?.filename) return undefined
  return { code: executable.filename, variables: variables.filename }
}
