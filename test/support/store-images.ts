import { expect, onTestFinished } from 'vitest'
import { defaultLimits } from '../../base/limits.ts'
import { imageDigest } from '../../images/encode-config.ts'
import type { ImageStore } from '../../images/image-store.ts'
import { openPartialFolder } from '../../images/partial/partial-folder.ts'
import type { RandomImage } from './random-layers.ts'

/** An image as a source tells of it. */
export const contentOf = ({ config, encoded }: RandomImage) => ({ config, layers: encoded })

/** Bytes as a stream. */
export async function* streamOf(...parts: Uint8Array[]): AsyncGenerator<Uint8Array> {
  yield* parts
}

/** Begins an image, and puts in what is missing; as many chunks as it is told. */
export async function fillImage(
  store: ImageStore,
  image: RandomImage,
  count = Number.POSITIVE_INFINITY,
): Promise<{ digest: string; put: number }> {
  const partial = await store.begin(contentOf(image))
  const digest = imageDigest(image.config)
  expect(partial?.record.digest).toBe(digest)
  const disk = await openPartialFolder(partial?.folder ?? '', digest, defaultLimits)
  onTestFinished(() => disk.close().catch(() => {}))
  let put = 0
  for (const name of disk.allMissing()) {
    if (put >= count) break
    await disk.put(name, image.chunks[name.layer]?.[name.chunk] ?? Buffer.alloc(0))
    put++
  }
  for (const { layer, chunk } of await disk.flush()) await store.noteChunks(digest, layer, [chunk])
  await disk.close()
  return { digest, put }
}
