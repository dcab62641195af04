/**
 * Lets work on the same keys run in the order in which it came, and all else at once: etcd serves
 * calls of one connection in no certain order. Work that only compares a key waits for what writes
 * it, not for others that compare it: all that a leader decides compares the leader's key.
 */
export interface KeyOrder {
  /**
   * @param keys what the work writes; undefined when it may touch any key
   * @param compared what it only looks at
   */
  run<Result>(
    keys: readonly string[] | undefined,
    work: () => Promise<Result>,
    compared?: readonly string[],
  ): Promise<Result>
  /** How much is under way or waits. */
  size(): number
  /** Resolves when nothing is. */
  idle(): Promise<void>
}

/** What is under way on a key. */
interface Turn {
  /** The newest that writes it. */
  written?: Promise<unknown>
  /** All that came since and compare it. */
  compared: Set<Promise<unknown>>
}

/** Nothing is under way. How much may wait is the caller's to bound. */
export function createKeyOrder(): KeyOrder {
  const turns = new Map<string, Turn>()
  let lastOnAll: Promise<unknown> | undefined
  const running = new Set<Promise<unknown>>()

  const waitsOf = (keys: readonly string[], compared: readonly string[]) => [
    ...(lastOnAll === undefined ? [] : [lastOnAll]),
    ...keys.flatMap(key => [...(turns.get(key)?.compared ?? [])]),
    ...[...keys, ...compared].flatMap(key => turns.get(key)?.written ?? []),
  ]
  const begin = (ended: Promise<unknown>, keys: readonly string[], compared: readonly string[]) => {
    for (const key of keys) turns.set(key, { written: ended, compared: new Set() })
    for (const key of compared) {
      const turn = turns.get(key) ?? { compared: new Set() }
      turn.compared.add(ended)
      turns.set(key, turn)
    }
  }
  const end = (ended: Promise<unknown>, keys: readonly string[], compared: readonly string[]) => {
    for (const key of [...keys, ...compared]) {
      const turn = turns.get(key)
      if (turn === undefined) continue
      turn.compared.delete(ended)
      if (turn.written === ended) delete turn.written
      if (turn.written === undefined && turn.compared.size === 0) turns.delete(key)
    }
  }

  return {
    async run(keys, work, compared = []) {
      const waits = keys === undefined ? [...running] : waitsOf(keys, compared)
      const result = waits.length === 0 ? work() : Promise.all(waits).then(work)
      const ended = result.catch(() => {})
      running.add(ended)
      if (keys === undefined) lastOnAll = ended
      else begin(ended, keys, compared)
      try {
        return await result
      } finally {
        running.delete(ended)
        if (lastOnAll === ended) lastOnAll = undefined
        end(ended, keys ?? [], compared)
      }
    },
    size: () => running.size,
    async idle() {
      while (running.size > 0) await Promise.all(running)
    },
  }
}
