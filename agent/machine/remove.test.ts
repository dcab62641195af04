import { join } from 'node:path'
import { Readable } from 'node:stream'
import { expect, test } from 'vitest'
import { noise, openTestStore } from '../../test/support/images.ts'
import { temporaryFolder } from '../../test/support/temporary-folder.ts'
import { createReservations } from '../capacity.ts'
import { releaseGuest, releaseLeftovers } from './remove.ts'

const raw = { format: 'raw', arch: 'x86_64' } as const

async function openImages() {
  const images = await openTestStore(join(temporaryFolder(), 'images'))
  const stream = Readable.from([noise(64 * 1024)])
  const { digest } = await images.importImage({ stream }, raw)
  return { images, digest }
}

test('a machine that was deleted before its first start holds no room and no image', async () => {
  const { images, digest } = await openImages()
  await images.use(digest, { uid: 'a', name: 'default/a' })
  const reservations = createReservations()
  reservations.adopt('a', { cpu: 1, memoryBytes: 1, diskBytes: 0, machines: 1 })
  await releaseGuest('a', { images, reservations, imageUseChanged: () => {} })
  expect(images.users(digest)).toEqual([])
  expect(reservations.total().machines).toBe(0)
})

test('images held for guests of which nothing is here are let go of', async () => {
  const { images, digest } = await openImages()
  await images.use(digest, { uid: 'here', name: 'default/here' })
  await images.use(digest, { uid: 'gone', name: 'default/gone' })
  await releaseLeftovers(uid => uid === 'here', images)
  expect(images.users(digest).map(({ uid }) => uid)).toEqual(['here'])
})
