import type { OtherFormat } from './recognise-format.ts'

/** The name of what is wrong with a file; programs and tests go by it. */
export type RefusalName =
  | OtherFormat
  | 'backingFile'
  | 'bitmapsOutOfRange'
  | 'clusterSize'
  | 'compressionType'
  | 'corrupt'
  | 'damaged'
  | 'dirty'
  | 'empty'
  | 'encrypted'
  | 'extensionOutOfRange'
  | 'externalDataFile'
  | 'headerLength'
  | 'noSize'
  | 'notQcow2'
  | 'refcountOrder'
  | 'sizeNotWholeSectors'
  | 'snapshots'
  | 'tableOutOfRange'
  | 'tooLarge'
  | 'truncated'
  | 'unknownFeature'
  | 'unknownVersion'

/** Why a file is not taken as an image. */
export interface Refusal {
  format: 'refused'
  refusal: RefusalName
  /** What was found, for people. */
  detail: string
  /** What to do about it; may be empty. */
  advice: string
}

/** Makes a refusal. */
export function refuse(refusal: RefusalName, detail: string, advice = ''): Refusal {
  return { format: 'refused', refusal, detail, advice }
}
