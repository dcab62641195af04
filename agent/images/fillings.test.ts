import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { systemClock } from '../../base/clock.ts'
import { defaultLimits } from '../../base/limits.ts'
import { silentLog } from '../../base/log.ts'
import { createTransfers } from '../../images/transfer/create-transfers.ts'
import { openTestStore } from '../../test/support/images.ts'
import { randomImage } from '../../test/support/random-layers.ts'
import { contentOf } from '../../test/support/store-images.ts'
import { temporaryFolder } from '../../test/support/temporary-folder.ts'
import { createFillings } from './fillings.ts'

test('more images on their way than go on at once do not keep the daemon down', async () => {
  const images = await openTestStore(join(temporaryFolder(), 'images'))
  for (const seed of [1, 2, 3]) {
    await images.begin(contentOf(randomImage({ seed, layerCount: 1, diskBlocks: 64 })))
  }
  const needs = { clock: systemClock, log: silentLog }
  const limits = { ...defaultLimits, imageFillings: 2 }
  const transfers = createTransfers({ host: 'here', limits }, needs)
  const fillings = createFillings(
    { onNews: () => {}, onStored: () => {} },
    {
      ...{ ...needs, images, transfers, limits },
      origins: { of: async () => ({ sources: [] }) },
      openSource: () => Promise.reject(new Error('nothing is opened')),
    },
  )
  onTestFinished(async () => {
    await fillings.stop()
    await transfers.close()
  })
  expect(fillings.all().size).toBe(2)
  expect(images.partials()).toHaveLength(3)
})
