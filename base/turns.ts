/** Lets one piece of work run at a time, in the order they came. */
export interface Turns {
  take<Result>(work: () => Promise<Result>): Promise<Result>
}

/**
 * Nobody's turn yet. Who waits is bounded by who may ask: requests and imports have limits of
 * their own.
 */
export function createTurns(): Turns {
  let last: Promise<unknown> = Promise.resolve()
  return {
    take(work) {
      const turn = last.then(work, work)
      last = turn.catch(() => {})
      return turn
    },
  }
}
