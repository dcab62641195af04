import { writeFileSync } from 'node:fs'
import { join } from 'node:path'

/**
 * The smallest guest there is: 68 bytes of real-mode code that a BIOS starts from a disk within a
 * third of a second. On its serial port it says `R`, then obeys what it reads: `e` makes it listen
 * to the power button (before that it is deaf, as a booting system is), `p` panics, `s` powers off,
 * and everything else comes back.
 */
const program = [
  [0xba, 0xf8, 0x03], //       mov dx, 0x3f8   serial port: data
  [0xb0, 0x52], //             mov al, 'R'
  [0xee], //                   out dx, al
  [0xba, 0x00, 0x06], // loop: mov dx, 0x600   ACPI: PM1 status
  [0xed], //                   in ax, dx
  [0xf6, 0xc4, 0x01], //       test ah, 1      power button pressed
  [0x75, 0x2c], //             jnz off
  [0xba, 0xfd, 0x03], //       mov dx, 0x3fd   serial port: line status
  [0xec], //                   in al, dx
  [0xa8, 0x01], //             test al, 1      a byte is there
  [0x74, 0xef], //             jz loop
  [0xba, 0xf8, 0x03], //       mov dx, 0x3f8
  [0xec], //                   in al, dx
  [0x3c, 0x65], //             cmp al, 'e'
  [0x74, 0x0b], //             je enable
  [0x3c, 0x70], //             cmp al, 'p'
  [0x74, 0x10], //             je panic
  [0x3c, 0x73], //             cmp al, 's'
  [0x74, 0x14], //             je off
  [0xee], //                   out dx, al
  [0xeb, 0xdc], //             jmp loop
  [0xba, 0x02, 0x06], // enable: mov dx, 0x602 ACPI: PM1 enable
  [0xb8, 0x00, 0x01], //       mov ax, 0x100   power button
  [0xef], //                   out dx, ax
  [0xeb, 0xd3], //             jmp loop
  [0xba, 0x05, 0x05], // panic: mov dx, 0x505  pvpanic
  [0xb0, 0x01], //             mov al, 1       panicked
  [0xee], //                   out dx, al
  [0xeb, 0xcb], //             jmp loop
  [0xba, 0x04, 0x06], // off:  mov dx, 0x604   ACPI: PM1 control
  [0xb8, 0x00, 0x20], //       mov ax, 0x2000  sleep enable, type 0: soft off
  [0xef], //                   out dx, ax
  [0xeb, 0xc2], //             jmp loop
].flat()

/** Writes the guest's disk into `folder` and tells how QEMU boots it. */
export function bootSectorArguments(folder: string): string[] {
  const sector = Buffer.alloc(512)
  sector.set(program)
  sector.writeUInt16LE(0xaa55, 510)
  const disk = Buffer.alloc(1024 * 1024)
  disk.set(sector)
  const path = join(folder, 'boot-sector.raw')
  writeFileSync(path, disk)
  return [
    ['-machine', 'q35', '-m', '32', '-device', 'pvpanic'],
    ['-blockdev', `driver=raw,node-name=boot,file.driver=file,file.filename=${path}`],
    ['-device', 'ide-hd,drive=boot'],
  ].flat()
}
