/**
 * Lets work on the same keys run in the order in which it came, and all else at once: etcd serves
 * calls of one connection in no certain order.
 */
export interface KeyOrder {
  /** @param keys what the work touches; undefined when it may touch any key */
  run<Result>(keys: readonly string[] | undefined, work: () => Promise<Result>): Promise<Result>
  /** How much is under way or waits. */
  size(): number
  /** Resolves when nothing is. */
  idle(): Promise<void>
}

/** Nothing is under way. How much may wait is the caller's to bound. */
export function createKeyOrder(): KeyOrder {
  /** The newest work on each key, and on all keys. */
  const last = new Map<string, Promise<unknown>>()
  let lastOnAll: Promise<unknown> | undefined
  const running = new Set<Promise<unknown>>()

  return {
    async run(keys, work) {
      const before =
        keys === undefined ? [...running] : [lastOnAll, ...keys.map(key => last.get(key))]
      const waits = before.filter(one => one !== undefined)
      const result = waits.length === 0 ? work() : Promise.all(waits).then(work)
      const ended = result.catch(() => {})
      running.add(ended)
      if (keys === undefined) lastOnAll = ended
      for (const key of keys ?? []) last.set(key, ended)
      try {
        return await result
      } finally {
        running.delete(ended)
        if (lastOnAll === ended) lastOnAll = undefined
        for (const key of keys ?? []) if (last.get(key) === ended) last.delete(key)
      }
    },
    size: () => running.size,
    async idle() {
      while (running.size > 0) await Promise.all(running)
    },
  }
}
