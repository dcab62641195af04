import { createHash } from 'node:crypto'
import { isIP, isIPv4 } from 'node:net'
import { networkInterfaces } from 'node:os'
import type { Clock, Timer } from '../base/clock.ts'
import type { CommandRunner } from '../base/command.ts'
import { messageOf } from '../base/errors.ts'
import type { Log } from '../base/log.ts'
import { listMembers } from '../cluster/membership/members.ts'
import type { Store } from '../cluster/store/store.ts'
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

/** How the firewall is put up. */
export interface RaiseOptions {
  /** Closed to guests, as address/bits, beside the networks that this host is attached to. */
  others?: readonly string[]
  /** Whether a failure is one that was not told of yet. */
  isNews?: boolean
}

/**
 * Puts up the firewall for guests' users, or again after the host's networks have changed.
 * @returns whether it stands; when not, the log says why
 */
export async function raiseFirewall(
  config: Config,
  { run, log }: Pick<FirewallComponents, 'run' | 'log'>,
  { others = [], isNews = true }: RaiseOptions = {},
): Promise<boolean> {
  if (!config.firewall || process.getuid?.() !== 0) return false
  try {
    const init = {
      name: firewallName(config.dataDir),
      users: config.guestUsers,
      resolvers: await readResolvers(),
      closedNetworks: [...attachedNetworks(networkInterfaces()), ...others],
    }
    await applyFirewall(init, run)
    return true
  } catch (error) {
    const say = isNews ? log.warn : log.debug
    say.call(log, { error: messageOf(error) }, "guests are not kept off this host's networks")
    return false
  }
}

/** The hosts of the fleet, those in other racks too: they are not on a network of this host's. */
async function memberNetworks(store: Store): Promise<string[]> {
  const addresses = (await listMembers(store)).map(({ address }) => address.host)
  // What is no address would cost us all of the firewall.
  const networks = addresses
    .filter(address => isIP(address) !== 0)
    .map(address => `${address}/${isIPv4(address) ? 32 : 128}`)
  return [...new Set(networks)].sort()
}

/**
 * Puts the firewall up again whenever the networks or hosts that it keeps guests off change, and
 * whenever it is gone: a restart of the host's own nftables service flushes every table there is.
 * @returns ends the looking; the firewall stays, as guests do
 */
export function followFirewall(
  config: Config,
  host: Pick<GuestHost, 'containment'>,
  components: FirewallComponents & { store: Store },
): () => void {
  const { clock, run, log, store } = components
  if (!config.firewall || process.getuid?.() !== 0) return () => {}
  const networks = () => attachedNetworks(networkInterfaces()).join()
  let known = networks()
  let others: readonly string[] = []
  let timer: Timer | undefined
  let stopped = false
  const look = async (): Promise<void> => {
    // While nobody tells, those that were told last.
    const told = await memberNetworks(store).catch(() => others)
    const now = [networks(), ...told].join()
    const name = firewallName(config.dataDir)
    const stands = await firewallStands(name, run).catch(() => false)
    if (!stands || now !== known) {
      const stood = host.containment.firewall
      if (stood && !stands) log.warn({}, 'the firewall of guests is put up anew')
      const options = { others: told, isNews: stood }
      host.containment.firewall = await raiseFirewall(config, components, options)
      others = told
      known = now
    }
    if (!stopped) timer = clock.setTimer(lookMs, () => void look())
  }
  void look()
  return () => {
    stopped = true
    timer?.cancel()
  }
}
