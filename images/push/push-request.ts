import type { ImageFolder } from '../image-folder.ts'

/** What is pushed, and where to. */
export interface PushRequest {
  /** The folder of an image that is here whole. */
  image: Pick<ImageFolder, 'path' | 'config'>
  /** `team/base` */
  repository: string
  /** The tag that is to name it. */
  tag: string
  /**
   * Where the image came from, if that was the same registry, and the locations of its layers there
   * (format/locations.ts), base first.
   */
  origin?: { repository: string; locations: readonly (Uint8Array | undefined)[] }
  /** Of the manifest, for people. */
  annotations?: Readonly<Record<string, string>>
}
