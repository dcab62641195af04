import type { MachineProfile } from '../machine.ts'

const pci = (driver: string, addr: string) => ({ driver, bus: 'pcie.0', addr })

/**
 * Haswell's features under Intel's name: what the macOS kernel looks for on a host of another make.
 */
const foreignHost = [
  'Haswell-v2',
  'vendor=GenuineIntel',
  'vmware-cpuid-freq=on',
  '+hypervisor',
  '+invtsc',
  '+avx2',
  '+fma',
  '-pdpe1gb',
].join(',')

/**
 * macOS 11 and later on x86_64. It boots through OpenCore, on Apple hardware, with the operator's
 * own image, boot disk and SMC key. HPET off and no sleep states, or the guest's clock and power
 * management go wrong; vmware-svga because macOS has a driver for it. NVMe is not used: QEMU can't
 * save its state.
 */
export const macosProfile: MachineProfile = {
  name: 'macos',
  architecture: 'x86_64',
  machineType: 'q35',
  machineOptions: { hpet: 'off', vmport: 'off' },
  cpu: [
    {
      accelerator: 'kvm',
      vendor: 'GenuineIntel',
      model: 'host,-pdpe1gb,+hypervisor,+invtsc,vmware-cpuid-freq=on',
    },
    { accelerator: 'kvm', model: foreignHost },
    { accelerator: 'tcg', model: 'max,vendor=GenuineIntel' },
  ],
  statesTscFrequency: true,
  powerOfTwoCpus: true,
  firmware: ['uefi'],
  globals: [
    { driver: 'ICH9-LPC', property: 'disable_s3', value: '1' },
    { driver: 'ICH9-LPC', property: 'acpi-pci-hotplug-with-bridge-support', value: 'off' },
  ],
  smbios: ['type=2'],
  display: pci('vmware-svga', '0x1'),
  disk: pci('virtio-blk-pci', '0x2'),
  seed: pci('virtio-blk-pci', '0x3'),
  nic: { ...pci('virtio-net-pci', '0x4'), romfile: '' },
  agentBus: pci('virtio-serial-pci', '0x5'),
  others: [
    pci('virtio-rng-pci', '0x6'),
    pci('virtio-balloon-pci', '0x7'),
    { ...pci('qemu-xhci', '0x8'), id: 'usb' },
    { driver: 'usb-kbd', bus: 'usb.0' },
    { driver: 'usb-tablet', bus: 'usb.0' },
  ],
  bootDisk: pci('virtio-blk-pci', '0x9'),
  smc: true,
}
