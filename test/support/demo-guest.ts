import { existsSync } from 'node:fs'
import { join } from 'node:path'

const folder = join(import.meta.dirname, '../../.macfleet/guests')
const kernel = join(folder, 'vmlinuz')
const initrd = join(folder, 'initrd')

/** Whether script/guests/micro has been run here. */
export const microGuestIsBuilt = existsSync(kernel) && existsSync(initrd)

/** How QEMU boots the micro guest: by its kernel, with a card, an agent port and a panic device. */
export const microGuestArguments = [
  ['-machine', 'q35', '-cpu', 'max', '-m', '256'],
  ['-kernel', kernel, '-initrd', initrd, '-append', 'console=ttyS0 quiet no_timer_check'],
  ['-device', 'pvpanic-pci', '-netdev', 'user,id=net0,restrict=on'],
  ['-device', 'virtio-net-pci,netdev=net0,romfile=', '-device', 'virtio-serial-pci'],
  ['-chardev', 'socket,id=agent0,path=agent.sock,server=on,wait=off'],
  ['-device', 'virtserialport,chardev=agent0,id=agent0,name=org.qemu.guest_agent.0'],
].flat()
