/** What is new, for one reader who only wants the newest. */
export interface Latest<Value> {
  /** Takes the place of what nobody has read yet. */
  say(value: Value): void
  /** Nothing comes any more. */
  end(): void
  /** Each newest value, until the end. */
  read(): AsyncGenerator<Value>
}

/** Holds one value at most. */
export function createLatest<Value>(): Latest<Value> {
  let held: { value: Value } | undefined
  let ended = false
  let news = Promise.withResolvers<void>()
  const wake = (): void => {
    news.resolve()
    news = Promise.withResolvers()
  }
  return {
    say(value) {
      held = { value }
      wake()
    },
    end() {
      ended = true
      wake()
    },
    async *read() {
      for (;;) {
        const next = news.promise
        if (held !== undefined) {
          const { value } = held
          held = undefined
          yield value
        } else if (ended) return
        else await next
      }
    },
  }
}
