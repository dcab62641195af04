import type { MachineProfile } from '../machine.ts'

const pci = (driver: string, addr: string) => ({ driver, bus: 'pcie.0', addr })

/**
 * Linux on x86_64: paravirtual devices only, and nothing on the board that Linux would probe in
 * vain.
 */
export const linuxProfile: MachineProfile = {
  name: 'linux',
  architecture: 'x86_64',
  machineType: 'q35',
  machineOptions: { vmport: 'off', sata: 'off', smbus: 'off' },
  cpu: [
    { accelerator: 'kvm', model: 'host' },
    { accelerator: 'tcg', model: 'max' },
  ],
  statesTscFrequency: false,
  powerOfTwoCpus: false,
  firmware: ['bios', 'uefi'],
  globals: [],
  smbios: [],
  display: { ...pci('VGA', '0x1'), vgamem_mb: 16 },
  disk: pci('virtio-blk-pci', '0x2'),
  seed: pci('virtio-blk-pci', '0x3'),
  // No boot from the network: without its ROM the firmware is done sooner.
  nic: { ...pci('virtio-net-pci', '0x4'), romfile: '' },
  agentBus: pci('virtio-serial-pci', '0x5'),
  others: [
    pci('virtio-rng-pci', '0x6'),
    // Memory that the guest has freed goes back to the host.
    {
      ...pci('virtio-balloon-pci', '0x7'),
      'deflate-on-oom': true,
      'free-page-reporting': true,
    },
    pci('pvpanic-pci', '0x8'),
    { driver: 'vmgenid', guid: 'auto' },
  ],
  smc: false,
}
