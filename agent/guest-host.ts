import { existsSync } from 'node:fs'
import { join } from 'node:path'
import type { CommandRunner } from '../base/command.ts'
import { messageOf } from '../base/errors.ts'
import type { Log } from '../base/log.ts'
import { chooseAccelerator, cpuVendor, readAcceleratorFacts } from '../kvm/accelerator.ts'
import { findQemu, findUefi, type QemuPrograms } from '../kvm/qemu.ts'
import type { AccessKey } from './access-key.ts'
import type { Config } from './config.ts'
import { raiseFirewall } from './guest-firewall.ts'
import type { GuestHost } from './machine/guest-host.ts'

/** Where guests' ports are offered by a host that no other host asks for them. */
const loopback = '127.0.0.1'

/** What finding out needs. */
export interface GuestHostComponents {
  run: CommandRunner
  log: Log
}

/** Finds out what this host can give to guests, and says aloud what it can't. */
export async function inspectGuestHost(
  config: Config,
  { accessKey, address }: { accessKey: AccessKey | undefined; address: string | undefined },
  components: GuestHostComponents,
): Promise<GuestHost> {
  const { run, log } = components
  const root = process.getuid?.() === 0
  const facts = await readAcceleratorFacts()
  const accelerator = chooseAccelerator(config.accelerator, facts)
  log.info({ ...accelerator }, 'accelerator chosen')
  const { qemu, problem } = await lookForQemu(run)
  const firewall = await raiseFirewall(config, components)
  return {
    name: config.hostName,
    roots: { dataRoot: join(config.dataDir, 'guests'), runRoot: join(config.runDir, 'guests') },
    qemu,
    qemuProblem: problem,
    accelerator,
    kvmGroupId: accelerator.accelerator === 'kvm' ? facts.deviceGroupId : undefined,
    uefi: await findUefi('x86_64').catch(() => undefined),
    cpuVendor: cpuVendor(facts.cpuInfo),
    containment: { root, systemd: existsSync('/run/systemd/system'), firewall },
    users: root ? config.guestUsers : undefined,
    accessKey: accessKey?.publicKey,
    ports: { address: config.forwardAddress ?? address ?? loopback, ...config.forwardPorts },
  }
}

/**
 * Looks again for what was missing when the daemon started: whoever installs it need not restart
 * the daemon.
 * @returns whether something is there now
 */
export async function lookAgain(host: GuestHost, run: CommandRunner): Promise<boolean> {
  let found = false
  if (host.qemu === undefined) {
    const { qemu, problem } = await lookForQemu(run)
    host.qemu = qemu
    host.qemuProblem = problem
    found = qemu !== undefined
  }
  if (host.uefi === undefined) {
    host.uefi = await findUefi('x86_64').catch(() => undefined)
    found ||= host.uefi !== undefined
  }
  return found
}

async function lookForQemu(
  run: CommandRunner,
): Promise<{ qemu: QemuPrograms | undefined; problem: string | undefined }> {
  try {
    return { qemu: await findQemu({ architecture: 'x86_64' }, run), problem: undefined }
  } catch (error) {
    return { qemu: undefined, problem: messageOf(error) }
  }
}
