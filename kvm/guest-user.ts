import { chown } from 'node:fs/promises'
import { assert, failure } from '../base/errors.ts'

/** The user and the group that a guest's QEMU runs as; the two numbers are the same. */
export interface UserIdentity {
  userId: number
  groupId: number
}

/** User ids that belong to guests and to nobody else; both ends included. */
export interface UserRange {
  first: number
  last: number
}

/**
 * Below systemd's container ranges (524288 and up) and above people and services
 * (systemd.io/UIDS-GIDS).
 */
export const defaultUserRange: UserRange = { first: 210_000, last: 219_999 }

/**
 * The user of a new guest: the lowest id of the range that no other guest has, stopped ones
 * included, because their disks belong to their ids.
 * @param used the ids of every guest of this daemon
 * @throws tooMany when the range is used up
 */
export function allocateUser(range: UserRange, used: Iterable<number>): UserIdentity {
  assert(range.first > 0 && range.first <= range.last, 'a range of user ids is empty or holds root')
  const taken = new Set(used)
  for (let id = range.first; id <= range.last; id++) {
    if (!taken.has(id)) return { userId: id, groupId: id }
  }
  throw failure('tooMany', { limit: range.last - range.first + 1, what: 'user ids for guests' })
}

/**
 * Gives a file or folder to a guest's user; nothing to do when QEMU runs as the daemon's own user.
 */
export async function setOwner(path: string, owner: UserIdentity | undefined): Promise<void> {
  if (owner !== undefined) await chown(path, owner.userId, owner.groupId)
}
