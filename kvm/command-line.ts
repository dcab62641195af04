import { isIPv4 } from 'node:net'
import { assert } from '../base/errors.ts'
import { blockGraph, blockNodes } from './block-graph.ts'
import { guestFiles } from './guest-folder.ts'
import type { DeviceModel, GuestLaunch, HostFacts, MachineProfile, PortForward } from './machine.ts'

/** The id of the guest agent's port, as QEMU's events name it. */
export const agentDevice = 'agent0'

/** The virtio-serial port that qemu-guest-agent opens by default. */
const agentPort = 'org.qemu.guest_agent.0'

/**
 * The arguments of a guest's QEMU (without the program's name), to be started in the guest's folder
 * (`GuestFolder.path`): files are named relative to it. Pure; the same input gives the same
 * arguments.
 *
 * Nothing that a user wrote becomes an option: devices and block nodes are JSON, the rest is
 * numbers, our own words, and two texts that are escaped (`-name`) or whole arguments (`-append`).
 */
export function commandLine(
  launch: GuestLaunch,
  profile: MachineProfile,
  host: HostFacts,
): string[] {
  assert(profile.firmware.includes(launch.firmware), `${profile.name} has no ${launch.firmware}`)
  return [
    ...identityArguments(launch),
    ...boardArguments(launch, profile, host),
    ...bootArguments(launch),
    ...blockGraph(launch, profile, host).flatMap(node => ['-blockdev', JSON.stringify(node)]),
    ...diskArguments(launch, profile),
    ...networkArguments(launch, profile),
    ...channelArguments(profile),
    ...displayArguments(profile),
    ...profile.others.flatMap(device),
    ...behaviourArguments,
  ]
}

function identityArguments(launch: GuestLaunch): string[] {
  return [
    '-nodefaults',
    '-no-user-config',
    '-name',
    `guest=${escapeCommas(launch.name)},debug-threads=on`,
    '-uuid',
    launch.uid,
  ]
}

function boardArguments(launch: GuestLaunch, profile: MachineProfile, host: HostFacts): string[] {
  const machine: Record<string, string> = {
    ...profile.machineOptions,
    accel: launch.accelerator,
    ...(launch.firmware === 'uefi' ? { pflash0: 'firmware', pflash1: 'nvram' } : {}),
  }
  const options = Object.entries(machine).map(([name, value]) => `${name}=${value}`)
  const count = launch.cpuCount
  assert(Number.isInteger(count) && count > 0, `not a number of CPUs: ${count}`)
  assert(!profile.powerOfTwoCpus || 2 ** Math.round(Math.log2(count)) === count, 'not 2^n CPUs')
  return [
    '-machine',
    [profile.machineType, ...options].join(','),
    '-cpu',
    cpuModel(launch, profile, host),
    '-smp',
    `cpus=${count},sockets=1,cores=${count},threads=1`,
    '-m',
    `size=${memoryMebibytes(launch.memoryBytes)}M`,
    ...profile.globals.flatMap(at => ['-global', `${at.driver}.${at.property}=${at.value}`]),
    ...profile.smbios.flatMap(value => ['-smbios', value]),
    // The key of the SMC is a secret of the operator's: in a file, where `ps` does not show it.
    ...(profile.smc ? ['-readconfig', guestFiles.smcKey] : []),
  ]
}

function cpuModel(launch: GuestLaunch, profile: MachineProfile, host: HostFacts): string {
  const choice = profile.cpu.find(
    at =>
      at.accelerator === launch.accelerator &&
      (at.vendor === undefined || at.vendor === host.cpuVendor),
  )
  assert(choice !== undefined, `${profile.name} has no CPU model for ${launch.accelerator}`)
  const states = profile.statesTscFrequency && launch.accelerator === 'kvm'
  if (!states || host.tscFrequencyHz === undefined) return choice.model
  return `${choice.model},tsc-frequency=${host.tscFrequencyHz}`
}

/** Whole MiB, rounded down: never more than was reserved. */
function memoryMebibytes(bytes: number): number {
  return Math.max(1, Math.floor(bytes / 2 ** 20))
}

function bootArguments(launch: GuestLaunch): string[] {
  if (launch.boot.from === 'disk') return ['-boot', 'menu=off,strict=on']
  return [
    '-kernel',
    guestFiles.kernel,
    ...(launch.boot.initrd ? ['-initrd', guestFiles.initrd] : []),
    '-append',
    launch.boot.append,
  ]
}

function diskArguments(launch: GuestLaunch, profile: MachineProfile): string[] {
  const thread = { 'qom-type': 'iothread', id: 'disk-thread' }
  const disk = {
    ...profile.disk,
    id: 'disk0',
    drive: blockNodes.disk,
    serial: 'macfleet-disk',
    bootindex: profile.bootDisk ? 2 : 1,
    iothread: thread.id,
    'write-cache': 'on',
    ...errorPolicies(launch),
  }
  const seed = { ...profile.seed, id: 'seed0', drive: 'seed', serial: 'macfleet-seed' }
  return [
    '-object',
    JSON.stringify(thread),
    ...(profile.bootDisk
      ? device({ ...profile.bootDisk, id: 'boot0', drive: 'opencore', bootindex: 1 })
      : []),
    ...device(disk),
    ...(launch.seed ? device(seed) : []),
  ]
}

/**
 * A full data folder pauses the guest until there is room; any other error is the guest's to see,
 * unless its image is still on its way: then the guest waits, in writes too, for which parts of the
 * image may have to be read.
 */
function errorPolicies({ base }: GuestLaunch): { werror: string; rerror: string } {
  if (base === 'export') return { werror: 'stop', rerror: 'stop' }
  return { werror: 'enospc', rerror: 'report' }
}

function networkArguments(launch: GuestLaunch, profile: MachineProfile): string[] {
  // Forwards are IPv4 only in QEMU, so the guest is too: half an IPv6 makes guests wait for
  // nothing.
  const network = ['user', 'id=net0', 'ipv6=off', ...launch.forwards.map(hostForward)]
  const nic = { ...profile.nic, id: 'nic0', netdev: 'net0', mac: macAddress(launch.uid) }
  return ['-netdev', network.join(','), ...device(nic)]
}

function hostForward(forward: PortForward): string {
  const { hostAddress, hostPort, guestPort } = forward
  assert(isIPv4(hostAddress), `not an IPv4 address: ${hostAddress}`)
  assert(isPort(hostPort) && isPort(guestPort), `not a port: ${hostPort} or ${guestPort}`)
  const protocol = forward.protocol === 'UDP' ? 'udp' : 'tcp'
  return `hostfwd=${protocol}:${hostAddress}:${hostPort}-:${guestPort}`
}

function isPort(port: number): boolean {
  return Number.isInteger(port) && port > 0 && port < 65_536
}

function channelArguments(profile: MachineProfile): string[] {
  const server = (id: string, path: string) => `socket,id=${id},path=${path},server=on,wait=off`
  return [
    ...['-chardev', server('qmp', guestFiles.qmp), '-mon', 'chardev=qmp,mode=control'],
    ...['-chardev', server('qmp-watch', guestFiles.qmpWatch)],
    ...['-mon', 'chardev=qmp-watch,mode=control'],
    '-chardev',
    `${server('console', guestFiles.console)},logfile=${guestFiles.consoleLog},logappend=on`,
    ...['-serial', 'chardev:console'],
    ...['-chardev', server('agent', guestFiles.agent)],
    ...device({ ...profile.agentBus, id: 'serial0' }),
    ...device({
      driver: 'virtserialport',
      id: agentDevice,
      bus: 'serial0.0',
      chardev: 'agent',
      name: agentPort,
    }),
  ]
}

function displayArguments(profile: MachineProfile): string[] {
  return [...device({ ...profile.display, id: 'display0' }), '-vnc', `unix:${guestFiles.vnc}`]
}

/**
 * A guest that powers off or panics leaves a paused QEMU behind, so that the daemon can ask it what
 * happened before it ends it. `-sandbox` is QEMU's own seccomp filter, every group of calls denied.
 */
const behaviourArguments: readonly string[] = [
  ...['-rtc', 'base=utc'],
  ...['-msg', 'timestamp=on'],
  ...['-action', 'reboot=reset,shutdown=pause,panic=pause'],
  '-sandbox',
  'on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny',
]

function device(model: DeviceModel): string[] {
  return ['-device', JSON.stringify(model)]
}

/** In QEMU's option lists a comma ends a value and two commas stand for one. */
function escapeCommas(text: string): string {
  return text.replaceAll(',', ',,')
}

/**
 * The MAC address of a guest: locally administered (IEEE 802c, second digit 2), the rest from its
 * uid, so that it stays when the guest moves.
 */
export function macAddress(uid: string): string {
  const digits = uid.replaceAll('-', '').slice(0, 10)
  return ['02', ...(digits.match(/../g) ?? [])].join(':')
}
