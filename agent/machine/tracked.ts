import type { GuestFolder } from '../../kvm/guest-folder.ts'
import type { Phase } from '../../resources/virtual-machine.ts'
import type { ImageArrival, ImageFetch } from './arrival.ts'
import { type GuestRecord, writeRecord } from './record.ts'
import type { Runtime } from './runtime.ts'

/** Why a machine that should run does not. */
export interface Obstacle {
  /** A word, for programs. */
  reason: string
  /** A sentence, for people. */
  message: string
}

/** One machine that this host answers for, and what the daemon holds of it in memory. */
export interface Tracked {
  uid: string
  namespace: string
  name: string
  folder: GuestFolder
  /** Undefined until its first start was prepared. */
  record: GuestRecord | undefined
  /** Undefined while its QEMU does not run. */
  runtime: Runtime | undefined
  /** A shutdown that is under way; aborting it leaves the guest to whoever aborted. */
  stopping: AbortController | undefined
  /** Monotonic time at which that shutdown pulls the plug. */
  stopByMs: number
  obstacle: Obstacle | undefined
  /** Monotonic time before which a guest that its disk blocks is not resumed again. */
  resumeNotBeforeMs: number
  /** As it was told last. */
  phase: Phase | undefined
  /** Its image, when that is asked for so that it can start. */
  fetch: ImageFetch | undefined
  /** Its image, when that is still on its way while the guest runs, or is about to. */
  arrival: ImageArrival | undefined
  /** The write of the record that is under way. */
  saving: Promise<void>
}

/** A machine of which nothing is known but its name and, if it was started once, its record. */
export function newTracked(
  { uid, namespace, name }: Pick<Tracked, 'uid' | 'namespace' | 'name'>,
  folder: GuestFolder,
  record: GuestRecord | undefined,
): Tracked {
  return {
    ...{ uid, namespace, name, folder, record },
    runtime: undefined,
    stopping: undefined,
    stopByMs: Number.POSITIVE_INFINITY,
    obstacle: undefined,
    resumeNotBeforeMs: Number.NEGATIVE_INFINITY,
    phase: undefined,
    fetch: undefined,
    arrival: undefined,
    saving: Promise.resolve(),
  }
}

/**
 * Writes the record as it is when its turn comes: writes of one guest never overtake each other, so
 * what was known last is what is on disk.
 */
export function saveRecord(tracked: Tracked): Promise<void> {
  const save = async (): Promise<void> => {
    if (tracked.record !== undefined) await writeRecord(tracked.folder, tracked.record)
  }
  const saved = tracked.saving.then(save)
  tracked.saving = saved.catch(() => {})
  return saved
}
