import { type Image, imageKind } from '../resources/image.ts'
import type { Objects } from './objects.ts'

type ImageStatus = NonNullable<Image['status']>

/** A host that has an image, and the machines there whose disks lie upon it. */
export type Holder = NonNullable<ImageStatus['holders']>[number]

/** Who holds an image, as it was told. */
export function holdersOf(status: ImageStatus | undefined): Holder[] {
  return status?.holders ?? (status?.hosts ?? []).map(host => ({ host, users: [] }))
}

/** The part of an image's status that says who holds it. */
export function heldBy(
  holders: readonly Holder[],
): Pick<ImageStatus, 'holders' | 'hosts' | 'users'> {
  const sorted = [...holders].sort((one, other) => (one.host < other.host ? -1 : 1))
  return {
    holders: sorted,
    hosts: sorted.map(({ host }) => host),
    users: sorted.flatMap(({ users }) => users),
  }
}

/** The earlier of two RFC 3339 timestamps of the same form. */
export function earliest(told: string | undefined, own: string): string {
  return told !== undefined && told < own ? told : own
}

/** The later of two RFC 3339 timestamps of the same form. */
export function latest(told: string | undefined, own: string): string {
  return told !== undefined && told > own ? told : own
}

/**
 * Takes a host that is a member no more out of the holders of every image: it can't say so itself,
 * and images that it used could never be deleted. May be repeated. @throws unavailable
 */
export async function dropHolder(name: string, objects: Objects): Promise<void> {
  const { items } = await objects.list(imageKind)
  for (const { metadata, status } of items) {
    if (!holdersOf(status).some(({ host }) => host === name)) continue
    await objects.changeStatus(imageKind, metadata, told => {
      if (told === undefined) return undefined
      return { ...told, ...heldBy(holdersOf(told).filter(({ host }) => host !== name)) }
    })
  }
}
