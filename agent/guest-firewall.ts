import { createHash } from 'node:crypto'
import { networkInterfaces } from 'node:os'
import type { Clock, Timer } from '../base/clock.ts'
import type { CommandRunner } from '../base/command.ts'
import { messageOf } from '../base/errors.ts'
import type { Log } from '../base/log.ts'
import { applyFirewall, attachedNetworks, firewallStands, readResolvers } from '../kvm/firewall.ts'
import type { Config } from './config.ts'
import type { GuestHost } from './machine/guest-host.ts'

/** What the firewall of guests needs. */
export interface FirewallComponents {
  clock: Clock
  run: CommandRunner
  log: Log
}

/** How often it is looked whether the firewall stands and fits the host's networks. */
const lookMs = 10_000

/** The name of a daemon's firewall table: its data folder's, because guests belong to that. */
export function firewallName(dataDir: string): string {
  return createHash('sha256').update(dataDir).digest('hex').slice(0, 12)
}

/**
 * Puts up the firewall for guests' users, or again after the host's networks have changed.
 * @param isNews whether a failure is one that was not told of yet
 * @returns whether it stands; when not, the log says why
 */
export async function raiseFirewall(
  config: Config,
  { run, log }: Pick<FirewallComponents, 'run' | 'log'>,
  isNews = true,
): Promise<boolean> {
  if (!config.firewall || process.getuid?.() !== 0) return false
  try {
    const init = {
      name: firewallName(config.dataDir),
      users: config.guestUsers,
      resolvers: await readResolvers(),
      closedNetworks: attachedNetworks(networkInterfaces()),
    }
    await applyFirewall(init, run)
    return true
  } catch (error) {
    const say = isNews ? log.warn : log.debug
    say.call(log, { error: messageOf(error) }, "guests are not kept off this host's networks")
    return false
  }
}

/**
 * Puts the firewall up again whenever the host's networks change, and whenever it is gone: a
 * restart of the host's own nftables service flushes every table there is.
 * @returns ends the looking; the firewall stays, as guests do
 */
export function followFirewall(
  config: Config,
  host: GuestHost,
  components: FirewallComponents,
): () => void {
  const { clock, run, log } = components
  if (!config.firewall || process.getuid?.() !== 0) return () => {}
  const networks = () => attachedNetworks(networkInterfaces()).join()
  let known = networks()
  let timer: Timer
  let stopped = false
  const look = async (): Promise<void> => {
    const now = networks()
    const name = firewallName(config.dataDir)
    const stands = await firewallStands(name, run).catch(() => false)
    if (!stands || now !== known) {
      const stood = host.containment.firewall
      if (stood) log.warn({ stands }, 'the firewall of guests is put up anew')
      host.containment.firewall = await raiseFirewall(config, components, stood)
      known = now
    }
    if (!stopped) timer = clock.setTimer(lookMs, () => void look())
  }
  timer = clock.setTimer(lookMs, () => void look())
  return () => {
    stopped = true
    timer.cancel()
  }
}
