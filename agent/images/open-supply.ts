import { failure } from '../../base/errors.ts'
import type { Objects } from '../../cluster/objects.ts'
import type { ImageStore } from '../../images/image-store.ts'
import { type Image, imageKind } from '../../resources/image.ts'
import type { Fillings } from './fillings.ts'
import type { ImageSupply, WantedImage } from './image-supply.ts'

/** What supplying machines needs. */
export interface SupplyComponents {
  objects: Objects
  images: Pick<ImageStore, 'partial'>
  fillings: Fillings
}

/** Supplies machines with images that are here, and brings the others. */
export function createImageSupply({ objects, images, fillings }: SupplyComponents): ImageSupply {
  return {
    find: digest => fillings.find(digest),
    async provide(wanted, signal) {
      const here = fillings.find(wanted.digest)
      const partial = images.partial(wanted.digest)
      const isReady = partial === undefined || partial.missingBlobs.size === 0
      // Without the store too: what is here is enough.
      const isComing = here?.disk !== undefined || here?.filling !== undefined
      if (here !== undefined && isReady && isComing) return here
      return await fillings.bring(await imageOf(wanted, objects), 'all', signal)
    },
  }
}

/** The image by its name; when that stands for something else by now, another of that content. */
async function imageOf({ namespace, name, digest }: WantedImage, objects: Objects): Promise<Image> {
  const named = await objects.find(imageKind, { namespace, name })
  if (named?.status?.digest === digest) return named
  const { items } = await objects.list(imageKind, { namespace })
  const same = items.find(({ status }) => status?.digest === digest)
  if (same !== undefined) return same
  throw failure('imageContentMissing', { name, digest })
}
