import { constants } from 'node:fs'
import { readdir } from 'node:fs/promises'
import { timestamp } from '../../base/clock.ts'
import { failure, isFailure, messageOf } from '../../base/errors.ts'
import { isErrno } from '../../base/files.ts'
import type { ImageRecord } from '../../images/image-record.ts'
import type { CommitRequest } from '../../interface/api/subresources.ts'
import { openGuestFile } from '../../kvm/guest-file.ts'
import { guestFolder } from '../../kvm/guest-folder.ts'
import { withCondition } from '../../resources/condition.ts'
import { type Image, imageKind } from '../../resources/image.ts'
import type { VirtualMachine } from '../../resources/virtual-machine.ts'
import type { ImageController } from '../image-controller.ts'
import type { MachineController } from '../machine/controller.ts'
import type { MachineContext } from '../machine/machine-context.ts'
import type { Tracked } from '../machine/tracked.ts'
import { copyDisk, makeImage } from './commit-disk.ts'

/** What making images of machines needs. */
export interface CommitsComponents
  extends Pick<
    MachineContext,
    'clock' | 'log' | 'limits' | 'objects' | 'events' | 'images' | 'host'
  > {
  machines: Pick<MachineController, 'find'>
  imageController: Pick<ImageController, 'fill'>
}

/** Makes images of what machines of this host wrote. */
export interface Commits {
  /**
   * Makes an image, in the machine's namespace, of the machine's image and what it wrote since; it
   * goes on. What was begun is taken back when it fails.
   * @throws commitRefused, alreadyExists, tooMany, snapshotFailed, imageRefused, diskFull, the
   * signal's reason
   */
  commit(machine: VirtualMachine, request: CommitRequest): Promise<Image>
  /** Ends those under way and waits until their guests go on. */
  stop(): Promise<void>
}

/** A machine that can be committed. */
interface Committable {
  tracked: Tracked
  parent: ImageRecord
}

/** Clears what a daemon that was killed left. */
export async function startCommits(components: CommitsComponents): Promise<Commits> {
  await emptySnapshots(components)
  const ending = new AbortController()
  const working = new Map<string, Promise<Image>>()
  return {
    async commit(machine, request) {
      const { uid = '', name } = machine.metadata
      const limit = components.limits.commits
      if (working.has(uid)) throw failure('conflict', { resource: 'the commit of machine', name })
      if (working.size >= limit) throw failure('tooMany', { limit, what: 'commits at once' })
      const signal = AbortSignal.any([request.signal, ending.signal])
      const work = commit(machine, { ...request, signal }, components)
      working.set(uid, work)
      try {
        return await work
      } finally {
        working.delete(uid)
      }
    },
    async stop() {
      ending.abort(failure('unavailable', closing))
      await Promise.allSettled(working.values())
    },
  }
}

const closing = {
  what: 'the daemon',
  detail: 'it ends',
  advice: 'Commit the machine again when it is back',
}

/**
 * Gives the room of copies back that nobody will read. The files stay: they tell whoever takes
 * hold of their guests that these may be frozen still (guest-runtime.ts).
 */
async function emptySnapshots({ host, log }: CommitsComponents): Promise<void> {
  const uids = await readdir(host.roots.dataRoot).catch(() => [])
  for (const uid of uids.filter(name => /^[0-9a-f-]{36}$/.test(name))) {
    try {
      const file = await openGuestFile(guestFolder(host.roots, uid).snapshot, constants.O_RDWR)
      await file.truncate().finally(() => file.close())
    } catch (error) {
      if (isErrno(error, 'ENOENT')) continue
      log.warn({ uid, error: messageOf(error) }, 'the copy of a disk could not be emptied')
    }
  }
}

async function commit(
  machine: VirtualMachine,
  request: CommitRequest,
  components: CommitsComponents,
): Promise<Image> {
  const found = findCommittable(machine, components)
  const { image, isNew } = await claimName(machine, found.parent, request, components)
  let unfrozen: string | undefined
  try {
    const done = await components.imageController.fill(image, async onProgress => {
      const { signal } = request
      const copy = await copyDisk(found.tracked, { onProgress, signal }, components)
      unfrozen = copy.unfrozen
      try {
        const disk = { parent: found.parent, size: machine.spec.disk }
        return await makeImage(disk, copy, { onProgress, signal }, components)
      } finally {
        await copy.close()
      }
    })
    return await tell(machine, done, unfrozen, components)
  } catch (error) {
    const { name } = request
    const message = `It did not become image ${name}: ${messageOf(error)}`
    components.events.record(machine, { type: 'Warning', reason: 'CommitFailed', message })
    if (isNew) await takeBack(image, components)
    throw error
  }
}

function findCommittable(
  machine: VirtualMachine,
  { machines, images, host }: CommitsComponents,
): Committable {
  const { uid = '', name } = machine.metadata
  const tracked = machines.find(uid)
  const refuse = (detail: string, advice: string) =>
    failure('commitRefused', { name, detail, advice })
  if (tracked === undefined) {
    const where = machine.status?.host
    if (where === undefined) throw refuse('it never ran', 'Start it first')
    throw refuse(`it is on ${where}, and this is ${host.name}`, `Ask ${where}`)
  }
  const digest = tracked.record?.imageDigest
  if (digest === undefined) throw refuse('it never ran', 'Start it first')
  const parent = images.get(digest)
  if (parent !== undefined) return { tracked, parent }
  throw refuse('its image is not here as a whole yet', 'Try again when it has arrived')
}

/** Creates the Image; one that a commit before left without content is gone on with. */
async function claimName(
  machine: VirtualMachine,
  parent: ImageRecord,
  { name, description, pinned }: CommitRequest,
  { objects }: CommitsComponents,
): Promise<{ image: Image; isNew: boolean }> {
  const { namespace } = machine.metadata
  const { arch, firmware, machine: shape, boot } = parent
  const kernelCommandLine = boot?.commandLine
  try {
    const image = await objects.create(imageKind, {
      apiVersion: 'macfleet.dev/v1',
      kind: 'Image',
      metadata: { name, ...(namespace !== undefined && { namespace }) },
      spec: {
        ...{ arch, firmware, machine: shape, pinned },
        description: description ?? `${machine.metadata.name}, a commit over ${machine.spec.image}`,
        ...(kernelCommandLine !== undefined && { kernelCommandLine }),
      },
    })
    return { image, isNew: true }
  } catch (error) {
    if (!isFailure(error, 'alreadyExists')) throw error
    const image = await objects.find(imageKind, { name, namespace })
    const { phase, digest } = image?.status ?? {}
    const isOpen = phase === 'Failed' && digest === undefined && image?.spec.source === undefined
    if (image === undefined || image.metadata.deletionTimestamp || !isOpen) throw error
    return { image, isNew: false }
  }
}

/** Best effort: what made the commit fail is the message that matters. */
async function takeBack(image: Image, { objects, log }: CommitsComponents): Promise<void> {
  const { uid, name } = image.metadata
  await objects
    .remove(imageKind, image.metadata, uid === undefined ? {} : { uid })
    .catch(error => log.warn({ image: name, error: messageOf(error) }, 'an image was not removed'))
}

/** Says on both objects what became of it, and how good the file systems in it are. */
async function tell(
  machine: VirtualMachine,
  image: Image,
  unfrozen: string | undefined,
  { objects, events, clock }: CommitsComponents,
): Promise<Image> {
  const { name } = image.metadata
  const from = machine.metadata.name
  const message = `It became image ${name}, and goes on`
  events.record(machine, { type: 'Normal', reason: 'Committed', message })
  const condition =
    unfrozen === undefined
      ? ({ status: 'True', reason: 'Frozen', message: `${from} held still for it` } as const)
      : ({ status: 'False', reason: 'NotFrozen', message: asAfterPowerLoss(unfrozen) } as const)
  if (unfrozen !== undefined) {
    events.record(image, { type: 'Warning', reason: 'NotFrozen', message: condition.message })
  }
  const told = await objects.changeStatus(imageKind, image.metadata, status => {
    if (status === undefined) return undefined
    const added = { type: 'FileSystemsConsistent', ...condition }
    return {
      ...status,
      conditions: withCondition(status.conditions ?? [], added, timestamp(clock)),
    }
  })
  return told ?? image
}

function asAfterPowerLoss(unfrozen: string): string {
  return `The file systems in it are as after a loss of power: ${unfrozen}`
}
