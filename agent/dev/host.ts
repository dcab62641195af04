import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { sleep } from '../../base/clock.ts'
import { failure } from '../../base/errors.ts'
import { isAlive, signalProcess } from '../../base/process-identity.ts'
import { type Random, randomUuid } from '../../base/random.ts'
import { checkout, endProcess, findLocalHost, startLocalHost } from './local-host.ts'
import { type NetworkComponents, type Place, plugIn, removeNamespace, unplug } from './network.ts'
import { guestUsers, hostAddress, type NetworkPlan, namespaceName, rackName } from './plan.ts'
import { type HostProcess, killAll, type ProcessRole, processesIn } from './processes.ts'

/** Which host, and what its daemon is told. */
export interface DevHostInit {
  plan: NetworkPlan
  place: Place
  /** Everything that it writes lies in here. */
  folder: string
  /** Settings of its daemon, beside those that make it a host of its own. */
  settings: Record<string, unknown>
  /** Ends commands that are under way. */
  signal: AbortSignal
}

/** What a host needs. */
export interface DevHostComponents extends NetworkComponents {
  random: Random
}

/** A host on this machine: a network namespace, a folder, and whatever runs in them. */
export interface DevHost {
  name: string
  /** The name of its rack's bridge. */
  rack: string
  address: string
  namespace: string
  /** What it has for an /etc/machine-id. */
  machineId: string
  folder: string
  dataDir: string
  runDir: string
  /** Of its daemon's API; reachable from outside whatever happens to the links. */
  socket: string
  /** Of its daemon. */
  log: string
  /** Runs `macfleet` against its daemon. @returns what it printed. @throws commandFailed */
  macfleet(args: readonly string[], input?: string): Promise<string>
  /** Starts the daemon unless it runs, and waits until it is ready. @throws Error with its log */
  start(): Promise<void>
  /** Ends the daemon as systemd would; guests run on. */
  stop(): Promise<void>
  /** What runs on it, by the kernel's word; of one role, or one machine's guest. */
  processes(role?: ProcessRole, uid?: string): HostProcess[]
  /** Kills (SIGKILL) and waits until they are gone. @returns how many there were */
  kill(role: ProcessRole, uid?: string): Promise<number>
  /** Stops them where they are (SIGSTOP), until `thaw`. @returns how many there were */
  freeze(role: ProcessRole, uid?: string): number
  thaw(role: ProcessRole, uid?: string): number
  /** Leaves a join token for a daemon that is in no fleet. */
  leaveToken(token: string): void
  /** Cuts its power: link, processes and sockets are gone at once. What is on disk stays. */
  powerOff(): Promise<void>
  /** The machine comes back, with a new boot id, and starts its daemon. */
  powerOn(): Promise<void>
}

const startMs = 60_000
const commandMs = 120_000
const outputBytesMost = 16 * 1024 * 1024
const stopMs = 20_000
const goneMs = 10_000
const lookMs = 5

/**
 * Gives a daemon a boot id of its own, as each machine has one, in the mount namespace that
 * `ip netns exec` makes for it.
 */
const withBootId = 'mount --bind "$1" /proc/sys/kernel/random/boot_id && shift && exec "$@"'

/** A host that stands in its network already; its daemon is not started. */
export function createDevHost(init: DevHostInit, components: DevHostComponents): DevHost {
  const { plan, place, folder } = init
  const { clock, random } = components
  const { name } = place
  const namespace = namespaceName(plan, name)
  const runDir = join(folder, 'run')
  const bootIdFile = join(folder, 'boot-id')
  const settings = settingsOf(init)
  const boot = (): void => writeFileSync(bootIdFile, `${randomUuid(random)}\n`)
  mkdirSync(folder, { recursive: true, mode: 0o711 })
  const machineId = random.bytes(16).toString('hex')
  writeFileSync(settings.machineIdFile, `${machineId}\n`)
  boot()
  const processes = (role?: ProcessRole, uid?: string): HostProcess[] =>
    processesIn(namespace)
      .filter(found => role === undefined || found.role === role)
      .filter(found => uid === undefined || found.guest?.uid === uid)
  const signal = (which: NodeJS.Signals, role: ProcessRole, uid?: string): HostProcess[] =>
    processes(role, uid).filter(found => signalProcess(found, which))
  const start = async (): Promise<void> => {
    const inside = ['ip', 'netns', 'exec', namespace, 'sh', '-c', withBootId, 'sh', bootIdFile]
    const command = [...inside, join(checkout, 'bin/macfleetd')]
    await startLocalHost({ folder, settings, timeoutMs: startMs, command })
  }
  const socket = join(runDir, 'macfleet.sock')
  return {
    name,
    machineId,
    rack: rackName(place.rack),
    address: settings.forwardAddress,
    namespace,
    folder,
    dataDir: join(folder, 'data'),
    runDir,
    socket,
    log: join(folder, 'macfleetd.log'),
    async macfleet(args, input) {
      // Not the settings of whoever runs this.
      const environment = { MACFLEET_CONFIG_DIR: join(folder, 'config'), NO_COLOR: '1' }
      const bounds = { timeoutMs: commandMs, outputBytes: outputBytesMost, signal: init.signal }
      const all = ['--socket', socket, ...args]
      return (
        await components.run(join(checkout, 'bin/macfleet'), all, { ...bounds, input, environment })
      ).stdout
    },
    start,
    async stop() {
      const found = findLocalHost(folder)
      if (found !== undefined) await endProcess(found.pid, stopMs)
    },
    processes,
    async kill(role, uid) {
      const killed = signal('SIGKILL', role, uid)
      const deadlineMs = clock.monotonicMs() + goneMs
      while (killed.some(isAlive)) {
        if (clock.monotonicMs() > deadlineMs) {
          throw failure('devFailed', { detail: `a ${role} of ${name} does not end` })
        }
        await sleep(clock, lookMs)
      }
      return killed.length
    },
    freeze: (role, uid) => signal('SIGSTOP', role, uid).length,
    thaw: (role, uid) => signal('SIGCONT', role, uid).length,
    leaveToken: token => writeFileSync(settings.joinTokenFile, `${token}\n`, { mode: 0o600 }),
    async powerOff() {
      await unplug(plan, name, components)
      await killAll([namespace], clock)
      await removeNamespace(plan, name, components)
      // /run is memory.
      rmSync(runDir, { recursive: true, force: true })
    },
    async powerOn() {
      boot()
      await plugIn(plan, place, components)
      await start()
    },
  }
}

function settingsOf({ plan, place, folder, settings }: DevHostInit) {
  const address = hostAddress(plan, place.rack, place.number)
  const fleet = (settings['fleet'] as Record<string, unknown> | undefined) ?? {}
  return {
    hostName: place.name,
    guestUsers: guestUsers(plan, place.number),
    ...settings,
    fleet: { address, rack: rackName(place.rack), ...fleet },
    forwardAddress: address,
    machineIdFile: join(folder, 'machine-id'),
    joinTokenFile: join(folder, 'join-token'),
  }
}
