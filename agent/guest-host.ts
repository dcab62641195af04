import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { networkInterfaces } from 'node:os'
import { join } from 'node:path'
import type { CommandRunner } from '../base/command.ts'
import { messageOf } from '../base/errors.ts'
import type { Log } from '../base/log.ts'
import { chooseAccelerator, cpuVendor, readAcceleratorFacts } from '../kvm/accelerator.ts'
import { applyFirewall, attachedNetworks, readResolvers } from '../kvm/firewall.ts'
import type { UserRange } from '../kvm/guest-user.ts'
import { findQemu, findUefi, type QemuPrograms } from '../kvm/qemu.ts'
import type { AccessKey } from './access-key.ts'
import type { Config } from './config.ts'
import type { GuestHost } from './machine/guest-host.ts'

/** What finding out needs. */
export interface GuestHostComponents {
  run: CommandRunner
  log: Log
}

/** Finds out what this host can give to guests, and says aloud what it can't. */
export async function inspectGuestHost(
  config: Config,
  accessKey: AccessKey | undefined,
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
    users: root ? guestUsers(config) : undefined,
    accessKey: accessKey?.publicKey,
    ports: { address: config.forwardAddress, ...config.forwardPorts },
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

function guestUsers(config: Pick<Config, 'guestUsers'>): UserRange {
  return config.guestUsers
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

/** The name of a daemon's firewall table: its data folder's, because guests belong to that. */
export function firewallName(dataDir: string): string {
  return createHash('sha256').update(dataDir).digest('hex').slice(0, 12)
}

/**
 * Puts up the firewall for guests' users, or again after the host's networks have changed.
 * @returns whether it stands; when not, the log says why
 */
export async function raiseFirewall(
  config: Config,
  { run, log }: GuestHostComponents,
): Promise<boolean> {
  if (!config.firewall || process.getuid?.() !== 0) return false
  try {
    const init = {
      name: firewallName(config.dataDir),
      users: guestUsers(config),
      resolvers: await readResolvers(),
      closedNetworks: attachedNetworks(networkInterfaces()),
    }
    await applyFirewall(init, run)
    return true
  } catch (error) {
    log.warn({ error: messageOf(error) }, 'guests are not kept off the networks of this host')
    return false
  }
}
