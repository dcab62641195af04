import { timestamp } from '../base/clock.ts'
import { failure } from '../base/errors.ts'
import { nameDiskFull } from './disk-space.ts'
import { type ImageFolder, writeState } from './image-folder.ts'
import type { ImageState, ImageUser } from './image-record.ts'
import { findAny, type StoreContext } from './store-context.ts'

/** Changes what is known of an image, durably. @throws diskFull */
export async function changeState(
  context: StoreContext,
  image: ImageFolder,
  change: (state: ImageState) => ImageState,
): Promise<void> {
  const state = change(image.state)
  try {
    await writeState(image.path, state)
  } catch (error) {
    throw nameDiskFull(error, context.init.folder)
  }
  image.state = state
}

/** Says that `owner` needs the image. @throws notFound */
export async function addUser(
  context: StoreContext,
  digest: string,
  owner: ImageUser,
): Promise<void> {
  const image = findAny(context, digest)
  const { users } = image.state
  if (users.some(({ uid, name }) => uid === owner.uid && name === owner.name)) return
  const others = users.filter(({ uid }) => uid !== owner.uid)
  const lastUsedAt = timestamp(context.components.clock)
  const user = { uid: owner.uid, name: owner.name }
  await changeState(context, image, state => ({ ...state, lastUsedAt, users: [...others, user] }))
}

/** Takes that back, wherever it was said. */
export async function dropUser(
  context: StoreContext,
  digest: string,
  ownerUid: string,
): Promise<void> {
  for (const image of [context.shelf.images.get(digest), context.filling.images.get(digest)]) {
    const users = image?.state.users ?? []
    const others = users.filter(({ uid }) => uid !== ownerUid)
    if (image === undefined || others.length === users.length) continue
    const lastUsedAt = timestamp(context.components.clock)
    await changeState(context, image, state => ({ ...state, lastUsedAt, users: others }))
  }
}

/** Users named in an error; the rest are counted. */
const usersNamed = 10

/** @throws imageInUse (with who uses it), imagePinned */
export function demandUnused(digest: string, { users, pinned }: ImageState): void {
  if (users.length > 0) {
    const named = users.slice(0, usersNamed).map(({ name }) => name)
    const more = users.length > usersNamed ? [`${users.length - usersNamed} more`] : []
    throw failure('imageInUse', { digest, users: [...named, ...more].join(', ') })
  }
  if (pinned) throw failure('imagePinned', { digest })
}
