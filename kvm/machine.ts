/** The instruction set of a guest; it runs on hosts of the same one. */
export type Architecture = 'x86_64' | 'aarch64'

/** How a guest's instructions are executed: by the CPU (KVM) or by QEMU's translator (TCG). */
export type Accelerator = 'kvm' | 'tcg'

/** What a virtual CPU runs first: SeaBIOS, which is part of QEMU, or OVMF. */
export type Firmware = 'bios' | 'uefi'

/**
 * A device as QEMU names it: `driver` and its properties; references to our nodes are added later.
 */
export interface DeviceModel {
  driver: string
  [property: string]: string | number | boolean
}

/** A CPU model for hosts with this accelerator and, where it matters, of this vendor. */
export interface CpuChoice {
  accelerator: Accelerator
  /** As /proc/cpuinfo's vendor_id says it; any vendor when left out. */
  vendor?: string
  /** The value of QEMU's -cpu. */
  model: string
}

/**
 * The shape of a machine, as data. A new kind of guest or another architecture is a new value of
 * this type. PCI devices name their slot (`addr`), so that a guest's device names stay when one is
 * added.
 */
export interface MachineProfile {
  name: string
  architecture: Architecture
  /** QEMU's -machine: the type, then its options. */
  machineType: string
  machineOptions: Readonly<Record<string, string>>
  /** The first that fits the host is taken. */
  cpu: readonly CpuChoice[]
  /**
   * The guest's clock must tick as the host's TSC, at a stated frequency, or its state can't be
   * saved.
   */
  statesTscFrequency: boolean
  /** Guests of this kind hang with other numbers of virtual CPUs than 1, 2, 4, 8, ... */
  powerOfTwoCpus: boolean
  /** Firmware that works, the default first. */
  firmware: readonly [Firmware, ...Firmware[]]
  /** Properties of devices that are part of the machine type (-global). */
  globals: readonly { driver: string; property: string; value: string }[]
  /** Values of -smbios. */
  smbios: readonly string[]
  disk: DeviceModel
  /** The NoCloud disk. */
  seed: DeviceModel
  nic: DeviceModel
  /** The controller of the port that the guest agent listens on. */
  agentBus: DeviceModel
  display: DeviceModel
  /**
   * Devices that need nothing of ours: random numbers, balloon, panic reports, generation id, USB.
   */
  others: readonly DeviceModel[]
  /** A boot disk before the system's own (OpenCore), read-only. */
  bootDisk?: DeviceModel
  /** The machine has Apple's SMC, whose key the operator brings. */
  smc: boolean
}

/** A port of the host that leads into the guest. */
export interface PortForward {
  protocol: 'TCP' | 'UDP'
  /** An IPv4 address of the host; QEMU's user networking takes no other. */
  hostAddress: string
  hostPort: number
  guestPort: number
}

/** How a guest boots: firmware reads its disk, or QEMU loads a kernel that lies in its folder. */
export type GuestBoot =
  | { from: 'disk' }
  | { from: 'kernel'; initrd: boolean /** The kernel's command line. */; append: string }

/** Everything about one guest that decides its QEMU's command line. Its files are in its folder. */
export interface GuestLaunch {
  /** The VM's metadata.uid; the machine's UUID and the source of its MAC address. */
  uid: string
  /** What `ps` shows, for example `default/web`. */
  name: string
  cpuCount: number
  memoryBytes: number
  accelerator: Accelerator
  firmware: Firmware
  boot: GuestBoot
  /**
   * What is behind the disk: the image's file (base.raw), an export of an image that is still on
   * its way (image.sock), or nothing.
   */
  base: 'file' | 'export' | 'none'
  /** Whether there is a NoCloud seed. */
  seed: boolean
  forwards: readonly PortForward[]
}

/** UEFI firmware of this host: the code that all guests read, the template of their variables. */
export interface UefiFirmware {
  code: string
  variables: string
}

/** What the command line needs to know about the host. */
export interface HostFacts {
  /** vendor_id of /proc/cpuinfo. */
  cpuVendor?: string
  /** For profiles that state it. */
  tscFrequencyHz?: number
  /** For guests with firmware `uefi`. */
  uefi?: UefiFirmware
}
