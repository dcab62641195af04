import type { Clock } from '../base/clock.ts'
import type { Random } from '../base/random.ts'
import type { Kind, Resource } from '../resources/kind.ts'
import type { ObjectReference, Preconditions } from './object-record.ts'
import type { Compare, Store } from './store/store.ts'

export type { ObjectReference, Preconditions } from './object-record.ts'

/**
 * Refuses, by throwing a table error, what a kind's schema can't see: an image removed while in
 * use. What it returns is compared in the transaction of the write, so that what it saw still
 * holds then.
 */
export interface Guard<T extends Resource = Resource> {
  kind: Kind<T>
  create?(object: T): Promise<readonly Compare[]>
  replace?(next: T, current: T): Promise<readonly Compare[]>
  /** Asked when a deletion begins; not again while it is under way. */
  remove?(object: T): Promise<readonly Compare[]>
}

/** How typed objects are kept. */
export interface ObjectsInit {
  guards?: readonly Guard[]
  /**
   * What a write reads before it writes, where `store` may answer with what was known when it was
   * reached last: nobody may be told "not found" by that. The same store without it.
   */
  freshStore?: Store
}

/** What they need. */
export interface ObjectsComponents {
  store: Store
  clock: Clock
  random: Random
}

/** Which objects of a kind. */
export interface ListSelection<T extends Resource> {
  /** Without it: of all namespaces. */
  namespace?: string
  /** At most so many; all of them without it. */
  limit?: number
  /** The token of the page before. */
  continue?: string
  /** Only objects for which it says true; the others don't count against the limit. */
  matches?(object: T): boolean
}

/** One page of a list. */
export interface ObjectList<T extends Resource> {
  items: T[]
  /** The revision at which the first page was read: a watch after it misses nothing of any page. */
  resourceVersion: string
  /** There is more: give this token to go on. */
  continue?: string
}

/** Do everything but the write: every check is made and the object as it would be is returned. */
export interface WriteOptions {
  dryRun?: boolean
}

/** How an object is removed. */
export interface RemoveOptions extends WriteOptions, Preconditions {
  /** Seconds that whoever holds something for the object may take; 0 is at once. */
  gracePeriodSeconds?: number
}

/** Where a watch begins and how it ends. */
export interface WatchSelection {
  namespace?: string
  /** A resourceVersion that a list or a watch told; the first change is one after it. */
  afterResourceVersion: string
  /** Ends the iteration, without an error. */
  signal: AbortSignal
}

/** One change of one object, or how far the watch is. */
export type ObjectChange<T extends Resource> =
  | { type: 'ADDED'; object: T }
  | { type: 'MODIFIED'; object: T; previous: T }
  /** The object as it last was; its resourceVersion is that of the deletion. */
  | { type: 'DELETED'; object: T }
  | { type: 'BOOKMARK'; resourceVersion: string }

/**
 * Typed objects over the store, for the API and the reconcilers. Every write is a transaction on
 * the revision that was read; writes that lose a race are repeated a few times on what is there
 * now. What is returned is shared and frozen below metadata: clone before changing it (mutators
 * get a clone). Beside the errors named, all pass on those of the store.
 */
export interface Objects {
  /** The object, or undefined. */
  find<T extends Resource>(kind: Kind<T>, reference: ObjectReference): Promise<T | undefined>

  /** @throws notFound */
  get<T extends Resource>(kind: Kind<T>, reference: ObjectReference): Promise<T>

  /**
   * In rising order of namespace and name.
   * @throws badRequest for a token that is not of this list
   */
  list<T extends Resource>(kind: Kind<T>, selection?: ListSelection<T>): Promise<ObjectList<T>>

  /**
   * Gives uid, creationTimestamp, generation 1, a name for a generateName and the kind's finalizer;
   * the status is left out where the kind has one of its own.
   * @throws invalid, alreadyExists, notFound or namespaceTerminating for the namespace
   */
  create<T extends Resource>(kind: Kind<T>, object: T, options?: WriteOptions): Promise<T>

  /**
   * Writes spec, labels, annotations, owners and finalizers; keeps the status and what the server
   * gave. generation grows by one when the spec changed. Nothing is written when nothing changed.
   * @throws notFound, conflict (metadata.resourceVersion or uid given, and others), invalid
   */
  replace<T extends Resource>(kind: Kind<T>, object: T, options?: WriteOptions): Promise<T>

  /**
   * Reads, mutates, writes as replace() does, again from the start when somebody else was faster.
   * @param mutate gets a clone; returns what should be there, or undefined to leave it as it is
   * @returns the object as it is now; undefined when it is not there
   * @throws conflict after many lost races, or when mutate names another resourceVersion; invalid
   */
  change<T extends Resource>(
    kind: Kind<T>,
    reference: ObjectReference,
    mutate: (object: T) => T | undefined,
    options?: WriteOptions,
  ): Promise<T | undefined>

  /**
   * As change(), for the status alone. Nothing is written when nothing changed.
   * @param options with `uid`, another object of the same name counts as not there
   */
  changeStatus<T extends Resource>(
    kind: Kind<T>,
    reference: ObjectReference,
    mutate: (status: T['status'] | undefined, object: T) => T['status'] | undefined,
    options?: WriteOptions & { uid?: string },
  ): Promise<T | undefined>

  /**
   * Removes an object without finalizers; else sets deletionTimestamp and leaves it to those who
   * hold them. Repeating it changes nothing, except to shorten the grace period.
   * @returns the object as it is, or last was
   * @throws notFound, conflict (uid, resourceVersion), what a guard throws
   */
  remove<T extends Resource>(
    kind: Kind<T>,
    reference: ObjectReference,
    options?: RemoveOptions,
  ): Promise<T>

  /**
   * Takes a finalizer away; the last one of a deleting object takes the object with it. Does
   * nothing when the object is gone or is another one (uid), so it may be repeated after a crash.
   */
  releaseFinalizer(
    kind: Kind,
    reference: ObjectReference,
    finalizer: string,
    uid: string,
  ): Promise<void>

  /**
   * Every change after a resourceVersion, without gaps.
   * @throws revisionCompacted, revisionUnknown, watcherTooSlow: then list again
   */
  watch<T extends Resource>(
    kind: Kind<T>,
    selection: WatchSelection,
  ): AsyncIterable<ObjectChange<T>>
}

/** What the files behind this one share. */
export interface ObjectsContext extends ObjectsComponents {
  guards: readonly Guard[]
}
