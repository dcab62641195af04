import type { CommandRunner } from '../../base/command.ts'
import { failure } from '../../base/errors.ts'
import type { Limits } from '../../base/limits.ts'
import type { Random } from '../../base/random.ts'
import { commandLine } from '../../kvm/command-line.ts'
import { containedCommand } from '../../kvm/containment.ts'
import type { GuestFolder } from '../../kvm/guest-folder.ts'
import { allocateUser } from '../../kvm/guest-user.ts'
import { copyBootFile, linkImage } from '../../kvm/image-file.ts'
import type { Firmware, GuestLaunch, MachineProfile } from '../../kvm/machine.ts'
import { createNvram } from '../../kvm/nvram.ts'
import { createOverlay } from '../../kvm/overlay.ts'
import { choosePorts, type HeldPort, isPortFree } from '../../kvm/ports.ts'
import { linuxProfile } from '../../kvm/profiles/linux.ts'
import type { QemuPrograms } from '../../kvm/qemu.ts'
import { createSeed } from '../../kvm/seed.ts'
import { quantityValue } from '../../resources/quantity.ts'
import type { VirtualMachine } from '../../resources/virtual-machine.ts'
import type { StartParameters } from '../guardian/protocol.ts'
import type { ProvidedImage } from '../images/image-supply.ts'
import type { GuestHost } from './guest-host.ts'
import type { GuestRecord } from './record.ts'

/** A start of one guest, its record with what was chosen. */
export interface LaunchInit {
  machine: VirtualMachine
  record: GuestRecord
  folder: GuestFolder
  image: ProvidedImage
}

/** What a start needs. */
export interface LaunchComponents {
  host: GuestHost
  run: CommandRunner
  random: Random
  limits: Limits
}

/** The shapes of machine that this host can start. */
const profiles: Partial<Record<VirtualMachine['spec']['machine'], MachineProfile>> = {
  linux: linuxProfile,
}

/** What a host without can't start guests with. @throws unavailable, machineUnsupported */
export function checkLaunchable(machine: VirtualMachine, host: GuestHost): void {
  needQemu(host)
  profileOf(machine, host)
}

/**
 * Makes everything that a guest's QEMU needs in its folder, as far as it is not there from an
 * earlier start. May be repeated after a crash at any point.
 * @returns what to start
 */
export async function prepareLaunch(
  init: LaunchInit,
  components: LaunchComponents,
): Promise<StartParameters> {
  const { record } = init
  const { host } = components
  const qemu = needQemu(host)
  const profile = profileOf(init.machine, host)
  const launch = describeLaunch(init, record, host)
  await makeFiles(init, record, launch, qemu, components)
  const args = commandLine(launch, profile, {
    ...(host.cpuVendor !== undefined && { cpuVendor: host.cpuVendor }),
    ...(host.uefi !== undefined && { uefi: host.uefi }),
  })
  return startParameters(init.folder, record, qemu, args, components)
}

function needQemu(host: GuestHost): QemuPrograms {
  if (host.qemu !== undefined) return host.qemu
  const detail = host.qemuProblem ?? 'it was not found'
  throw failure('unavailable', {
    what: 'QEMU',
    detail,
    advice: '`macfleet doctor` says how to get it',
  })
}

function profileOf(machine: VirtualMachine, host: GuestHost): MachineProfile {
  const shape = machine.spec.machine
  const profile = profiles[shape]
  if (profile !== undefined) return profile
  throw failure('machineUnsupported', { machine: shape, host: host.name })
}

/** A guest that gets its user and ports. */
export interface ResourcesInit {
  machine: VirtualMachine
  record: GuestRecord
  /** Records of the other guests of this host. */
  others: readonly GuestRecord[]
  /** Users to whom a guest's files belong, whatever its record says. */
  owners: readonly number[]
}

/**
 * Chooses a guest's user, once and for good, and its ports. What it returns must be written down
 * before the next guest's turn, and before anything is given to that user.
 * @throws portTaken, portsExhausted, tooMany
 */
export async function chooseResources(
  { machine, record, others, owners }: ResourcesInit,
  { host, random }: Pick<LaunchComponents, 'host' | 'random'>,
): Promise<GuestRecord> {
  const held: HeldPort[] = others.flatMap(other =>
    other.forwards.map(({ protocol, hostPort }) => ({
      protocol,
      hostPort,
      holder: `the virtual machine ${other.namespace}/${other.name}`,
    })),
  )
  const wanted = (machine.spec.ports ?? []).map(port => {
    const last = record.forwards.find(
      at => at.guestPort === port.guestPort && at.protocol === port.protocol,
    )
    return { ...port, lastHostPort: last?.hostPort }
  })
  const forwards = await choosePorts(wanted, held, host.ports, { random, isFree: isPortFree })
  const used = [...owners, ...others.flatMap(other => (other.user ? [other.user.userId] : []))]
  const user = host.users ? (record.user ?? allocateUser(host.users, used)) : undefined
  return { ...record, forwards, ...(user && { user }) }
}

function describeLaunch(
  { machine, image }: LaunchInit,
  record: GuestRecord,
  host: GuestHost,
): GuestLaunch {
  const firmware: Firmware = machine.spec.firmware ?? image.record.firmware ?? 'bios'
  if (firmware === 'uefi' && host.uefi === undefined) {
    throw failure('firmwareMissing', { firmware: 'UEFI', looked: 'no descriptor names one' })
  }
  const fromKernel = image.kernel !== undefined && machine.spec.firmware === undefined
  return {
    uid: record.uid,
    name: `${record.namespace}/${record.name}`,
    cpuCount: Math.max(1, Math.ceil(quantityValue(machine.spec.cpu))),
    memoryBytes: quantityValue(machine.spec.memory),
    accelerator: host.accelerator.accelerator,
    firmware,
    boot: fromKernel
      ? {
          from: 'kernel',
          initrd: image.initrd !== undefined,
          append: image.record.boot?.commandLine ?? 'console=ttyS0',
        }
      : { from: 'disk' },
    base: image.filling === undefined ? 'file' : 'export',
    seed: true,
    forwards: record.forwards,
  }
}

async function makeFiles(
  { machine, folder, image }: LaunchInit,
  record: GuestRecord,
  launch: GuestLaunch,
  qemu: QemuPrograms,
  { host, run }: LaunchComponents,
): Promise<void> {
  const tools = { qemuImage: qemu.image, run }
  const owner = record.user
  const imageBytes = image.record.virtualSizeBytes
  const { disk } = machine.spec
  const seed = {
    folder,
    owner,
    instanceId: record.uid,
    hostName: record.name,
    sshKeys: [...(machine.spec.sshKeys ?? []), ...(host.accessKey ? [host.accessKey] : [])],
    userData: machine.spec.userData,
  }
  const sizeBytes = disk === undefined ? imageBytes : quantityValue(disk)
  await Promise.all([
    ...(image.disk ? [linkImage(image.disk, folder.base, owner)] : []),
    createOverlay({ folder, sizeBytes, imageBytes, owner }, tools),
    createSeed(seed, run),
    ...(image.kernel ? [copyBootFile(image.kernel, folder.kernel)] : []),
    ...(image.initrd ? [copyBootFile(image.initrd, folder.initrd)] : []),
    ...(launch.firmware === 'uefi' && host.uefi
      ? [createNvram({ folder, template: image.nvram ?? host.uefi.variables, owner }, tools)]
      : []),
  ])
}

function startParameters(
  folder: GuestFolder,
  record: GuestRecord,
  qemu: QemuPrograms,
  args: readonly string[],
  { host, limits }: LaunchComponents,
): StartParameters {
  const init = {
    command: qemu.system,
    args,
    user: record.user,
    kvmGroupId: host.kvmGroupId,
    unit: `macfleet-${record.uid}-${record.runs}`,
  }
  const { command, args: commandArguments } = containedCommand(init, host.containment)
  return {
    name: record.uid,
    command,
    arguments: commandArguments,
    workingFolder: folder.path,
    stderrPath: folder.stderr,
    exitPath: folder.exit,
    logs: [{ path: folder.consoleLog, limitBytes: limits.serialLogBytes }],
  }
}
