import type { Clock } from '../../base/clock.ts'
import type { Limits } from '../../base/limits.ts'
import type { Log } from '../../base/log.ts'
import type { Random } from '../../base/random.ts'
import { createLibrarySource } from '../library/library-source.ts'
import { createPeerSource } from '../peers/peer-source.ts'
import { createRegistrySource } from '../registry/registry-source.ts'
import type { ImageSource, SourceDescription } from '../sources/source.ts'
import type { TransferTls } from './transfers.ts'

/** What sources need of the thread that they are opened in. */
export interface SourceComponents {
  clock: Clock
  random: Random
  log: Log
  limits: Limits
  /** This host's certificate, as it is now. */
  tls(): TransferTls | undefined
}

/** Makes a source of its description. @throws sourceFailed */
export type OpenSource = (description: SourceDescription) => Promise<ImageSource>

/** Opens every kind of source. */
export function createOpener(components: SourceComponents): OpenSource {
  return async description => {
    if (description.kind === 'peer') return createPeerSource(description, components)
    if (description.kind === 'library') return createLibrarySource(description, components)
    return createRegistrySource(description, components)
  }
}
