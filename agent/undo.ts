import { type Log, messageOf } from '../base/log.ts'

/** Undoes what was started, last first, when a later part fails or the daemon stops. */
export class Undo {
  readonly #steps: (() => unknown)[] = []

  /** Adds how the part that was just started is stopped. */
  add(step: () => unknown): void {
    this.#steps.unshift(step)
  }

  /** Stops all; one that fails keeps no other from being stopped. */
  async run(log: Log): Promise<void> {
    for (const step of this.#steps.splice(0)) {
      try {
        await step()
      } catch (error) {
        log.warn({ error: messageOf(error) }, 'a part did not stop cleanly')
      }
    }
  }
}
