import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { commandLine, macAddress } from './command-line.ts'
import type { GuestLaunch } from './machine.ts'
import { linuxProfile } from './profiles/linux.ts'
import { macosProfile } from './profiles/macos.ts'

const uefi = {
  code: '/usr/share/OVMF/OVMF_CODE_4M.fd',
  variables: '/usr/share/OVMF/OVMF_VARS_4M.fd',
}

const launch: GuestLaunch = {
  uid: '0b1c2d3e-4f50-4617-8293-a4b5c6d7e8f9',
  name: 'default/web',
  cpuCount: 2,
  memoryBytes: 1024 ** 3,
  accelerator: 'tcg',
  firmware: 'bios',
  boot: { from: 'disk' },
  base: 'file',
  seed: true,
  forwards: [{ protocol: 'TCP', hostAddress: '127.0.0.1', hostPort: 20_022, guestPort: 22 }],
}

/** One option a line, as a person would write them. */
function lines(args: readonly string[]): string {
  return args.reduce(
    (text, arg) => text + (arg.startsWith('-') ? `\n${arg}` : ` ${arg}`),
    'qemu-system',
  )
}

/** The values given to one option. */
function values(args: readonly string[], option: string): string[] {
  return args.flatMap((arg, at) => (arg === option ? [args[at + 1] ?? ''] : []))
}

describe('the command line', () => {
  test('of a Linux guest with an image and a seed', () => {
    expect(lines(commandLine(launch, linuxProfile, {}))).toMatchSnapshot()
  })

  test('of a Linux guest with UEFI and a kernel of its own', () => {
    const direct: GuestLaunch = {
      ...launch,
      accelerator: 'kvm',
      firmware: 'uefi',
      boot: { from: 'kernel', initrd: true, append: 'console=ttyS0 root=/dev/vda' },
      base: 'none',
      seed: false,
      forwards: [],
    }
    expect(lines(commandLine(direct, linuxProfile, { uefi }))).toMatchSnapshot()
  })

  test('of a macOS guest', () => {
    const macos: GuestLaunch = { ...launch, accelerator: 'kvm', firmware: 'uefi', seed: false }
    const host = { uefi, cpuVendor: 'GenuineIntel', tscFrequencyHz: 2_900_000_000 }
    expect(lines(commandLine(macos, macosProfile, host))).toMatchSnapshot()
  })

  test('gives macOS on an AMD host the name of an Intel CPU', () => {
    const macos: GuestLaunch = { ...launch, accelerator: 'kvm', firmware: 'uefi' }
    const args = commandLine(macos, macosProfile, { uefi, cpuVendor: 'AuthenticAMD' })
    expect(values(args, '-cpu')[0]).toContain('vendor=GenuineIntel')
  })

  test('refuses what the profile can not do', () => {
    expect(() => commandLine(launch, macosProfile, { uefi })).toThrow('has no bios')
    const six: GuestLaunch = { ...launch, firmware: 'uefi', cpuCount: 6 }
    expect(() => commandLine(six, macosProfile, { uefi })).toThrow('not 2^n CPUs')
    expect(() => commandLine({ ...launch, firmware: 'uefi' }, linuxProfile, {})).toThrow('firmware')
    const forwards = [{ ...launch.forwards[0], hostAddress: '::1' }] as GuestLaunch['forwards']
    expect(() => commandLine({ ...launch, forwards }, linuxProfile, {})).toThrow('not an IPv4')
  })

  test('never takes more memory than was reserved', () => {
    const args = commandLine({ ...launch, memoryBytes: 512_000_000 }, linuxProfile, {})
    expect(values(args, '-m')).toEqual(['size=488M'])
  })

  test('keeps what a user wrote inside one value', () => {
    const plain = commandLine({ ...launch, name: 'x', boot: kernel('x') }, linuxProfile, {})
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), fc.string({ unit: 'binary' }), (name, append) => {
        const args = commandLine({ ...launch, name, boot: kernel(append) }, linuxProfile, {})
        expect(args.length).toBe(plain.length)
        const differing = args.filter((arg, at) => arg !== plain[at])
        expect(differing.length).toBeLessThanOrEqual(2)
        expect(optionList(values(args, '-name')[0] ?? '')).toEqual([
          `guest=${name}`,
          'debug-threads=on',
        ])
        expect(values(args, '-append')).toContain(append)
      }),
    )
  })

  test('states the format of every node and names every backing', () => {
    const nodes: Record<string, unknown>[] = values(
      commandLine({ ...launch, firmware: 'uefi' }, linuxProfile, { uefi }),
      '-blockdev',
    ).map(text => JSON.parse(text))
    for (const node of nodes) expect(['file', 'raw', 'qcow2']).toContain(node['driver'])
    for (const node of nodes.filter(at => at['driver'] === 'qcow2')) {
      expect(node).toHaveProperty('backing')
    }
  })
})

function kernel(append: string): GuestLaunch['boot'] {
  return { from: 'kernel', initrd: false, append }
}

/** Splits as QEMU's option parser does: at single commas, two commas being one (util/keyval.c). */
function optionList(text: string): string[] {
  return text.match(/(?:[^,]|,,)+/gs)?.map(part => part.replaceAll(',,', ',')) ?? []
}

test('a MAC address is local, of one machine, and the same for the same guest', () => {
  expect(macAddress(launch.uid)).toBe('02:0b:1c:2d:3e:4f')
})
