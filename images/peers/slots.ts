/** Places for work of which only so much goes on at once; who comes later waits in order. */
export interface Slots {
  /**
   * Waits for a place. Nobody waits twice at once: how many wait is bounded by who may ask.
   * @returns to be called to give it back; calling it again does nothing
   */
  take(signal: AbortSignal): Promise<() => void>
}

/** @param most places */
export function createSlots(most: number): Slots {
  let free = most
  const waiting = new Set<() => void>()
  const give = (): (() => void) => {
    let given = false
    return () => {
      if (given) return
      given = true
      const [next] = waiting
      if (next === undefined) free++
      else next()
    }
  }
  return {
    take(signal) {
      if (signal.aborted) return Promise.reject(signal.reason)
      if (free > 0) {
        free--
        return Promise.resolve(give())
      }
      return new Promise((resolve, reject) => {
        const onTurn = () => {
          waiting.delete(onTurn)
          signal.removeEventListener('abort', onAbort)
          resolve(give())
        }
        const onAbort = () => {
          waiting.delete(onTurn)
          reject(signal.reason)
        }
        waiting.add(onTurn)
        signal.addEventListener('abort', onAbort, { once: true })
      })
    },
  }
}
