import type { Clock } from '../../base/clock.ts'
import type { Log } from '../../base/log.ts'
import type { EventRecorder } from '../event-recorder.ts'
import type { FactsView } from '../fleet/facts.ts'
import type { Objects } from '../objects.ts'
import type { Store } from '../store/store.ts'
import type { Book } from './book.ts'
import type { FencedWrites } from './fenced-writes.ts'
import type { LeaderMetrics } from './metrics.ts'
import type { Placing } from './placing.ts'
import type { Silences } from './silence.ts'
import type { Teller } from './teller.ts'
import type { FollowedFleet } from './view.ts'

/** What leading needs. */
export interface TermComponents {
  store: Store
  objects: Objects
  facts: FactsView
  events: EventRecorder
  metrics: LeaderMetrics
  clock: Clock
  log: Log
}

/** What the parts of a term share. */
export interface TermContext extends TermComponents {
  view: FollowedFleet
  book: Book
  silences: Silences
  writes: FencedWrites
  placing: Placing
  teller: Teller
}
