import { failure } from '../../base/errors.ts'
import type { ImageStore } from '../../images/image-store.ts'
import type { ImageSupply, ProvidedImage } from './image-supply.ts'

/** What is here whole, and nothing else. */
export function createLocalSupply(images: ImageStore): ImageSupply {
  const find = (digest: string): ProvidedImage | undefined => {
    const record = images.get(digest)
    if (record === undefined) return undefined
    const [kernel, initrd] = [images.kernelPath(digest), images.initrdPath(digest)]
    return {
      record,
      disk: images.diskPath(digest),
      ...(kernel !== undefined && { kernel }),
      ...(initrd !== undefined && { initrd }),
    }
  }
  return {
    find,
    async provide({ name, digest }) {
      const found = find(digest)
      if (found !== undefined) return found
      throw failure('imageContentMissing', { name, digest })
    },
  }
}
