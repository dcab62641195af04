import { type Clock, timestamp } from '../../base/clock.ts'
import type { Log } from '../../base/log.ts'
import { type Again, createWorkQueue } from '../../base/work-queue.ts'
import { findCondition } from '../../resources/condition.ts'
import { type Host, hostKind } from '../../resources/host.ts'
import { type Image, imageKind } from '../../resources/image.ts'
import { followObjects } from '../object-follow.ts'
import type { Objects } from '../objects.ts'

/** What keeping copies needs. */
export interface ImageCopiesComponents {
  objects: Objects
  clock: Clock
  log: Log
}

/** A host that was lost for so long is given up: a copy elsewhere takes its place. */
const givenUpMs = 5 * 60_000
/** Nothing says that a host has been lost for long enough: it is looked at. */
const againMs = 30_000
const everything = 'all'

/**
 * Says of each image with `spec.copies` which hosts are to hold it (`status.copyHosts`), until the
 * signal is aborted; the hosts themselves fetch it. Two leaders at once do no harm: each write
 * compares the image's revision, and both come to the same.
 */
export async function keepImageCopies(
  signal: AbortSignal,
  components: ImageCopiesComponents,
): Promise<void> {
  const { objects, clock, log } = components
  const queue = createWorkQueue(
    {
      handle: () => assignAll(components),
      backoff: { firstMs: 500, mostMs: 10_000 },
    },
    { clock, log },
  )
  const look = () => queue.add(everything)
  const following = [
    followObjects(imageKind, { objects, clock, log }, look),
    followObjects(hostKind, { objects, clock, log }, look),
  ]
  await new Promise<void>(resolve => {
    if (signal.aborted) resolve()
    signal.addEventListener('abort', () => resolve(), { once: true })
  })
  await Promise.all(following.map(each => each.stop()))
  await queue.stop()
}

async function assignAll({ objects, clock }: ImageCopiesComponents): Promise<Again> {
  const { items: images } = await objects.list(imageKind)
  if (!images.some(needsAssignment)) return undefined
  const { items: hosts } = await objects.list(hostKind)
  const nowMs = Date.parse(timestamp(clock))
  for (const image of images.filter(needsAssignment)) {
    if (same(chooseCopyHosts(image, hosts, nowMs), image.status?.copyHosts ?? [])) continue
    await objects.changeStatus(imageKind, image.metadata, (status, current) => {
      if (status === undefined) return undefined
      const chosen = chooseCopyHosts(current, hosts, nowMs)
      const { copyHosts: _, ...rest } = status
      return chosen.length === 0 ? rest : { ...rest, copyHosts: chosen }
    })
  }
  return { againMs }
}

function needsAssignment({ metadata, spec, status }: Image): boolean {
  if (metadata.deletionTimestamp !== undefined || status === undefined) return false
  return spec.copies !== undefined || status.copyHosts !== undefined
}

/**
 * Which hosts are to hold an image: those that were to before, then those that hold it, then those
 * to which it is on its way, then the ones with the most room. In order of their names.
 */
export function chooseCopyHosts(image: Image, hosts: readonly Host[], nowMs: number): string[] {
  const { copies, arch } = image.spec
  if (copies === undefined || image.status?.digest === undefined) return []
  const { count = hosts.length, hostSelector = {} } = copies
  const held = new Set(image.status.hosts ?? [])
  const filling = new Set((image.status.filling ?? []).map(({ host }) => host))
  const before = new Set(image.status.copyHosts ?? [])
  const rank = ({ metadata: { name } }: Host): number => {
    if (before.has(name)) return 0
    if (held.has(name)) return 1
    return filling.has(name) ? 2 : 3
  }
  return hosts
    .filter(host => mayHold(host, arch, hostSelector, nowMs))
    .sort(
      (one, other) =>
        rank(one) - rank(other) ||
        freeBytes(other) - freeBytes(one) ||
        (one.metadata.name < other.metadata.name ? -1 : 1),
    )
    .slice(0, count)
    .map(({ metadata }) => metadata.name)
    .sort()
}

function mayHold(
  host: Host,
  arch: Image['spec']['arch'],
  selector: Readonly<Record<string, string>>,
  nowMs: number,
): boolean {
  const { labels = {}, deletionTimestamp } = host.metadata
  if (deletionTimestamp !== undefined || (host.status?.arch ?? arch) !== arch) return false
  if (!Object.entries(selector).every(([key, value]) => labels[key] === value)) return false
  const ready = findCondition(host.status?.conditions, 'Ready')
  if (ready?.status !== 'Unknown') return true
  return nowMs - Date.parse(ready.lastTransitionTime ?? '') < givenUpMs
}

function freeBytes({ status }: Host): number {
  return (status?.allocatable?.diskBytes ?? 0) - (status?.usage?.diskBytes ?? 0)
}

function same(one: readonly string[], other: readonly string[]): boolean {
  return one.length === other.length && one.every((each, at) => each === other[at])
}
