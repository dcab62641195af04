import type { Clock } from '../../base/clock.ts'
import type { Limits } from '../../base/limits.ts'
import type { Log } from '../../base/log.ts'
import type { Random } from '../../base/random.ts'
import type { ImageSource, SourceDescription } from '../sources/source.ts'

/** What filling needs. */
export interface FillComponents {
  clock: Clock
  random: Random
  log: Log
  limits: Pick<
    Limits,
    'sourceBytesInFlight' | 'sourceRequestsAtOnce' | 'fillSources' | 'fillReadsWaiting'
  >
  open(description: SourceDescription): Promise<ImageSource>
  /** Plain bytes that this image may have in flight now. */
  allowanceBytes(): number
  /** Hosts that served rot, which all fillings leave alone. */
  rotten: { has(name: string): boolean; add(name: string): void }
}
