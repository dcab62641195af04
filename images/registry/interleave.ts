/**
 * Takes from several streams as they bring something, `atOnce` of them at a time. Each is asked for
 * its next thing only when its last was taken, so no more than one of each waits here. The first
 * that fails ends all; the streams that are still open then must be ended by their own signal.
 */
export async function* interleave<Item>(
  streams: Iterable<() => AsyncGenerator<Item>>,
  atOnce: number,
): AsyncGenerator<Item> {
  const waiting = streams[Symbol.iterator]()
  const running = new Map<AsyncGenerator<Item>, Promise<Step<Item>>>()
  const ask = (from: AsyncGenerator<Item>): void => {
    const step = from.next().then(result => ({ from, result }))
    // Whoever fails while nobody listens any more fails for nobody.
    step.catch(() => {})
    running.set(from, step)
  }
  const begin = (): void => {
    while (running.size < atOnce) {
      const next = waiting.next()
      if (next.done) return
      ask(next.value())
    }
  }
  try {
    for (begin(); running.size > 0; begin()) {
      const { from, result } = await Promise.race(running.values())
      if (result.done) {
        running.delete(from)
      } else {
        ask(from)
        yield result.value
      }
    }
  } finally {
    for (const from of running.keys()) from.return(undefined).catch(() => {})
  }
}

interface Step<Item> {
  from: AsyncGenerator<Item>
  result: IteratorResult<Item>
}
