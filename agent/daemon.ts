import { join } from 'node:path'
import type { Clock } from '../base/clock.ts'
import type { CommandRunner } from '../base/command.ts'
import { isFailure, messageOf } from '../base/errors.ts'
import { makeFolder } from '../base/files.ts'
import type { Limits } from '../base/limits.ts'
import type { Log } from '../base/log.ts'
import type { Registry } from '../base/metrics.ts'
import type { Random } from '../base/random.ts'
import { createEventRecorder } from '../cluster/event-recorder.ts'
import { namespaceGuard, startNamespaceController } from '../cluster/namespace-controller.ts'
import { createObjects, type Objects } from '../cluster/objects.ts'
import { openLevelStore } from '../cluster/store/level.ts'
import { openImageStore } from '../images/image-store.ts'
import { startApiServer } from '../interface/api/server.ts'
import { defaultNamespace, namespaceKind } from '../resources/namespace.ts'
import { quantityValue } from '../resources/quantity.ts'
import { type AccessKey, loadAccessKey } from './access-key.ts'
import { makeWay, startBallast } from './ballast.ts'
import { allocatableOf, capacityOf, createReservations } from './capacity.ts'
import type { Config } from './config.ts'
import { keepGuardian } from './guardian-keeper.ts'
import { followFirewall } from './guest-firewall.ts'
import { inspectGuestHost } from './guest-host.ts'
import { ownVersion, startHostController } from './host-controller.ts'
import { imageGuard, startImageController } from './image-controller.ts'
import { startMachineController } from './machine/controller.ts'
import { startMonitor } from './monitor.ts'
import { createSubresources } from './subresources.ts'

/** What a daemon needs. */
export interface DaemonComponents {
  clock: Clock
  random: Random
  log: Log
  limits: Limits
  run: CommandRunner
  metrics: Registry
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

/** Undoes what was started, last first, when a later part fails or the daemon stops. */
class Undo {
  readonly #steps: (() => unknown)[] = []

  add(step: () => unknown): void {
    this.#steps.unshift(step)
  }

  async run(log: Log): Promise<void> {
    for (const step of this.#steps.splice(0)) {
      try {
        await step()
      } catch (error) {
        log.warn({ error: messageOf(error) }, 'a part did not stop cleanly')
      }
    }
  }
}

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
  config: Config,
  components: DaemonComponents,
  undo: Undo,
): Promise<Daemon> {
  const { clock, random, log, limits, metrics } = components
  makeFolder(config.dataDir, 0o711)
  makeFolder(config.runDir, 0o755)
  const ballastFolder = join(config.dataDir, 'ballast')
  await makeWay(ballastFolder, components)
  const store = await openLevelStore({ folder: join(config.dataDir, 'store') }, components)
  undo.add(() => store.close())
  const diskReserveBytes = quantityValue(config.diskReserve)
  const images = await openImageStore(
    {
      folder: join(config.dataDir, 'images'),
      limits: { ...limits, imageReserveBytes: diskReserveBytes },
      sandboxIdentity: process.getuid?.() === 0 ? nobody : undefined,
      // The images are the truth, the index only says where their chunks are.
      rebuildIndex: true,
    },
    components,
  )
  undo.add(() => images.close())
  const objects = createObjects(
    { guards: [imageGuard(images), namespaceGuard] },
    { store, clock, random },
  )
  await ensureDefaultNamespace(objects)
  const namespaces = startNamespaceController({ objects, clock, log })
  undo.add(() => namespaces.stop())
  const monitor = await startMonitor({ folder: config.dataDir, intervalMs: monitorMs }, components)
  undo.add(() => monitor.stop())
  const ballast = startBallast(
    { folder: ballastFolder, reserveBytes: diskReserveBytes },
    { ...components, monitor },
  )
  undo.add(() => ballast.stop())
  const guardian = await keepGuardian(config, components)
  undo.add(() => guardian.close())
  const accessKey = await findAccessKey(config, components)
  const host = await inspectGuestHost(config, accessKey, components)
  const events = createEventRecorder(
    { component: 'macfleetd', host: host.name, windowMs: 600_000 },
    { objects, clock, random, log, limits },
  )
  undo.add(() => events.flush())
  const reservations = createReservations()
  const shared = { ...components, config, objects, events, images, monitor, host, reservations }
  const hostController = await startHostController(shared)
  undo.add(() => hostController.stop())
  const uploads = join(config.dataDir, 'uploads')
  const imageController = await startImageController({ ...shared, hostName: host.name, uploads })
  undo.add(() => imageController.stop())
  const context = {
    ...shared,
    guardian,
    allocatable: () => allocatableOf(capacityOf(monitor.current(), limits.machinesPerHost), config),
    diskHasRoom: () => monitor.current().diskFreeBytes > diskReserveBytes,
    imageUseChanged: () => imageController.refresh(),
  }
  const machines = await startMachineController(context)
  undo.add(() => machines.stop())
  undo.add(followFirewall(config, host, components))
  // Not the guardian: a daemon that waits for it is well, and a restart would not bring it back.
  const checkHealth = async (): Promise<void> => {
    await store.revision()
  }
  const server = await startApiServer(
    {
      socketPath: config.socket,
      socketGroup: config.socketGroup,
      version: ownVersion(),
      readiness: { store: () => store.revision(), guardian: () => guardian.hello() },
      subresources: createSubresources({ machines, imageController, accessKey }, context),
    },
    { ...components, objects, metrics },
  )
  undo.add(() => server.close())
  log.info({ socket: config.socket, version: ownVersion() }, 'macfleetd is ready')
  return { checkHealth, stop: () => undo.run(log) }
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

async function ensureDefaultNamespace(objects: Objects): Promise<void> {
  const metadata = { name: defaultNamespace }
  if ((await objects.find(namespaceKind, metadata)) !== undefined) return
  try {
    await objects.create(namespaceKind, { apiVersion: 'v1', kind: 'Namespace', metadata })
  } catch (error) {
    if (!isFailure(error, 'alreadyExists')) throw error
  }
}
