import type { AcceleratorDecision } from '../../kvm/accelerator.ts'
import type { ContainmentFacts } from '../../kvm/containment.ts'
import type { GuestRoots } from '../../kvm/guest-folder.ts'
import type { UserRange } from '../../kvm/guest-user.ts'
import type { UefiFirmware } from '../../kvm/machine.ts'
import type { PortRange } from '../../kvm/ports.ts'
import type { QemuPrograms } from '../../kvm/qemu.ts'

/** What this host offers its guests; found out when the daemon starts, programs also later. */
export interface GuestHost {
  /** The Host object's name. */
  name: string
  roots: GuestRoots
  /** Undefined when QEMU is missing: no guest starts until it is there. */
  qemu: QemuPrograms | undefined
  /** Why there is no QEMU. */
  qemuProblem: string | undefined
  accelerator: AcceleratorDecision
  /** The group that may open /dev/kvm, when guests use it. */
  kvmGroupId: number | undefined
  /** Undefined when no UEFI firmware is installed. */
  uefi: UefiFirmware | undefined
  cpuVendor: string | undefined
  containment: ContainmentFacts
  /** Undefined when guests run as the daemon's own user. */
  users: UserRange | undefined
  ports: PortRange
  /** A public key of the daemon's own that every guest gets; undefined without ssh-keygen. */
  accessKey: string | undefined
}
