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
 * Takes a host that is a member no more out of what images say of hosts: it can't say so itself,
 * and images that it used could never be deleted. May be repeated. @throws unavailable
 */
export async function dropHolder(name: string, objects: Objects): Promise<void> {
  const { items } = await objects.list(imageKind)
  for (const { metadata, status } of items) {
    const named = [...holdersOf(status), ...(status?.filling ?? [])]
    if (!named.some(({ host }) => host === name)) continue
    await objects.changeStatus(imageKind, metadata, told => {
      if (told === undefined) return undefined
      const holders = holdersOf(told).filter(({ host }) => host !== name)
      return { ...withoutFilling(told, name), ...heldBy(holders) }
    })
  }
}

/** An image is not on its way to a host, or no more. */
export function withoutFilling(status: ImageStatus, host: string): ImageStatus {
  if (status.filling === undefined) return status
  const { filling, ...rest } = status
  const others = filling.filter(each => each.host !== host)
  return others.length === 0 ? rest : { ...rest, filling: others }
}
