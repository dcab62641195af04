import { join } from 'node:path'
import { type Clock, sleep } from '../base/clock.ts'
import type { CommandRunner } from '../base/command.ts'
import { isFailure, messageOf } from '../base/errors.ts'
import { makeFolder } from '../base/files.ts'
import type { Limits } from '../base/limits.ts'
import type { Log } from '../base/log.ts'
import type { Registry } from '../base/metrics.ts'
import type { Random } from '../base/random.ts'
import { createEventRecorder } from '../cluster/event-recorder.ts'
import { keepImageCopies } from '../cluster/leader/image-copies.ts'
import { startLeader } from '../cluster/leader/leader.ts'
import { createLeaderMetrics } from '../cluster/leader/metrics.ts'
import { namespaceGuard, startNamespaceController } from '../cluster/namespace-controller.ts'
import { createObjects, type Objects } from '../cluster/objects.ts'
import { openImageStore } from '../images/image-store.ts'
import { startApiServer } from '../interface/api/server.ts'
import { defaultNamespace, namespaceKind } from '../resources/namespace.ts'
import { quantityValue } from '../resources/quantity.ts'
import { type AccessKey, loadAccessKey } from './access-key.ts'
import { makeWay, startBallast } from './ballast.ts'
import { allocatableOf, capacityOf, createReservations } from './capacity.ts'
import type { Config } from './config.ts'
import { joiningGuard } from './fleet/joining-guard.ts'
import { openGround } from './fleet/open-ground.ts'
import { policyOf } from './fleet/policy.ts'
import type { Transitions } from './fleet/transitions.ts'
import { followFirewall } from './guest-firewall.ts'
import { inspectGuestHost } from './guest-host.ts'
import { ownVersion, startHostController } from './host-controller.ts'
import { imageGuard, startImageController } from './image-controller.ts'
import { startCommits } from './images/commit-machine.ts'
import { createSpareImages } from './images/spare-images.ts'
import { startImages } from './images/start-images.ts'
import { startMachineController } from './machine/controller.ts'
import { startMonitor } from './monitor.ts'
import { ownFacts } from './own-facts.ts'
import { createSubresources } from './subresources.ts'
import { Undo } from './undo.ts'

/** What a daemon needs. */
export interface DaemonComponents {
  clock: Clock
  random: Random
  log: Log
  limits: Limits
  run: CommandRunner
  metrics: Registry
  transitions: Transitions
}

/** A running daemon. */
export interface Daemon {
  /** Whether its essential parts work; throws what is wrong. */
  checkHealth(): Promise<void>
  /** Stops answering and lets go of everything. Guests run on. */
  stop(): Promise<void>
}

/** Who the tools run as that read files from outside. */
const nobody = { uid: 65_534, gid: 65_534 }
const monitorMs = 1000
const namespaceRetryMs = 2000

/**
 * Starts everything of one host in order: store, images, guardian, controllers, and last the API,
 * so that whoever gets an answer gets it from a daemon that is whole.
 */
export async function startDaemon(config: Config, components: DaemonComponents): Promise<Daemon> {
  const undo = new Undo()
  try {
    return await startParts(config, components, undo)
  } catch (error) {
    await undo.run(components.log)
    throw error
  }
}

async function startParts(
  settings: Config,
  components: DaemonComponents,
  undo: Undo,
): Promise<Daemon> {
  const { clock, random, log, limits, metrics } = components
  makeFolder(settings.dataDir, 0o711)
  makeFolder(settings.runDir, 0o755)
  const ballastFolder = join(settings.dataDir, 'ballast')
  await makeWay(ballastFolder, components)
  const ground = await openGround(settings, components, undo)
  const config = { ...settings, hostName: ground.host }
  const { store, freshStore, lease, guardian } = ground
  const diskReserveBytes = quantityValue(config.diskReserve)
  const spare = createSpareImages()
  const images = await openImageStore(
    {
      folder: join(config.dataDir, 'images'),
      limits: { ...limits, imageReserveBytes: diskReserveBytes, ...quotaOf(config) },
      sandboxIdentity: process.getuid?.() === 0 ? nobody : undefined,
      // The images are the truth, the index only says where their chunks are.
      rebuildIndex: true,
      keep: spare.keep,
      onEvicted: spare.evicted,
      onRemove: async digest => await ground.transfers?.server.removeImage(digest),
    },
    components,
  )
  undo.add(() => images.close())
  const objects = createObjects(
    {
      guards: [imageGuard(images), namespaceGuard, joiningGuard(components.transitions)],
      freshStore,
    },
    { store, clock, random },
  )
  undo.add(ensureDefaultNamespace({ ...components, objects }))
  const namespaces = startNamespaceController({ objects, clock, log })
  undo.add(() => namespaces.stop())
  const monitor = await startMonitor({ folder: config.dataDir, intervalMs: monitorMs }, components)
  undo.add(() => monitor.stop())
  const ballast = startBallast(
    { folder: ballastFolder, reserveBytes: diskReserveBytes },
    { ...components, monitor },
  )
  undo.add(() => ballast.stop())
  const accessKey = await findAccessKey(config, components)
  const host = await inspectGuestHost(config, { accessKey, address: ground.address }, components)
  const events = createEventRecorder(
    { component: 'macfleetd', host: host.name, windowMs: 600_000 },
    { objects, clock, random, log, limits },
  )
  undo.add(() => events.flush())
  const reservations = createReservations()
  const { address, facts, timing, fenced } = ground
  const parts = { store, objects, events, images, monitor, host, reservations }
  const shared = { ...components, config, address, ...parts }
  const hostController = await startHostController(shared)
  undo.add(() => hostController.stop())
  const uploads = join(config.dataDir, 'uploads')
  const imageController = await startImageController({ ...shared, hostName: host.name, uploads })
  undo.add(() => imageController.stop())
  const hostImages = startImages(
    {
      config,
      hostName: host.name,
      peers: ground.transfers,
      spare,
      onChange: () => imageController.refresh(),
    },
    shared,
    undo,
  )
  const context = {
    ...shared,
    guardian,
    lease,
    supply: hostImages.supply,
    hasPeers: fenced,
    recovery: ground.recovery,
    allocatable: () => allocatableOf(capacityOf(monitor.current(), limits.machinesPerHost), config),
    diskHasRoom: () => monitor.current().diskFreeBytes > diskReserveBytes,
    imageUseChanged: () => imageController.refresh(),
  }
  const machines = await startMachineController(context)
  undo.add(() => machines.stop())
  const commits = await startCommits({ ...context, machines, imageController })
  undo.add(() => commits.stop())
  undo.add(followFirewall(config, host, { ...components, store }))
  ground.tellFacts(() => ownFacts(shared))
  const leading = createObjects({}, { store: freshStore, clock, random })
  const beside = async (signal: AbortSignal): Promise<void> => {
    const copies = keepImageCopies(signal, { objects: leading, clock, log })
    await Promise.all([ground.lead(signal), copies])
  }
  const leader = startLeader(
    { host: host.name, timing, fenced, policy: policyOf(config), beside },
    {
      ...{ ...components, facts, events, store: freshStore },
      objects: leading,
      metrics: createLeaderMetrics(metrics),
    },
  )
  undo.add(() => leader.stop())
  const server = await startApiServer(
    {
      socketPath: config.socket,
      socketGroup: config.socketGroup,
      version: ownVersion(),
      readiness: { store: () => store.revision(), guardian: () => guardian.hello() },
      fleet: ground.operations,
      staleSince: ground.staleSince,
      subresources: createSubresources(
        { machines, imageController, commits, accessKey, hostImages },
        context,
      ),
    },
    { ...components, objects, metrics },
  )
  undo.add(() => server.close())
  log.info({ socket: config.socket, version: ownVersion() }, 'macfleetd is ready')
  // Not the guardian: a daemon that waits for it is well, and a restart would not bring it back.
  return { checkHealth: ground.checkHealth, stop: () => undo.run(log) }
}

function quotaOf({ imageQuota }: Config): { imageQuotaBytes?: number } {
  return imageQuota === undefined ? {} : { imageQuotaBytes: quantityValue(imageQuota) }
}

/** Without ssh-keygen there is no `exec` with a terminal; everything else works. */
async function findAccessKey(
  config: Config,
  { run, log }: DaemonComponents,
): Promise<AccessKey | undefined> {
  try {
    return await loadAccessKey(config.dataDir, run)
  } catch (error) {
    log.warn({ error: messageOf(error) }, 'the daemon has no SSH key of its own')
    return undefined
  }
}

/** In the background, because a host of a fleet starts while its store is away. */
function ensureDefaultNamespace(components: DaemonComponents & { objects: Objects }): () => void {
  const { objects, clock, log } = components
  const stopping = new AbortController()
  const run = async (): Promise<void> => {
    const metadata = { name: defaultNamespace }
    while (!stopping.signal.aborted) {
      try {
        if ((await objects.find(namespaceKind, metadata)) !== undefined) return
        await objects.create(namespaceKind, { apiVersion: 'v1', kind: 'Namespace', metadata })
        return
      } catch (error) {
        if (isFailure(error, 'alreadyExists')) return
        log.warn({ error: messageOf(error) }, 'the default namespace could not be made')
        await sleep(clock, namespaceRetryMs, stopping.signal).catch(() => {})
      }
    }
  }
  void run()
  return () => stopping.abort()
}
