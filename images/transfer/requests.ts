/** A chunk that was asked of a source and has not come. */
export interface Request {
  source: string
  /** Milliseconds of the monotonic clock. */
  askedAtMs: number
  /** How long chunks of that source take these days. */
  expectedMs: number
}

/** Which chunks are asked for, and of whom. */
export interface Requests {
  add(number: number, request: Request): void
  /** The answer came, or will not come. */
  remove(number: number, source: string): void
  of(number: number): readonly Request[]
  has(number: number): boolean
  all(): Iterable<[number, readonly Request[]]>
}

const none: readonly Request[] = []

/** Makes an empty book. */
export function createRequests(): Requests {
  const byChunk = new Map<number, Request[]>()
  return {
    add(number, request) {
      const requests = byChunk.get(number)
      if (requests === undefined) byChunk.set(number, [request])
      else requests.push(request)
    },
    remove(number, source) {
      const left = byChunk.get(number)?.filter(request => request.source !== source) ?? []
      if (left.length === 0) byChunk.delete(number)
      else byChunk.set(number, left)
    },
    of: number => byChunk.get(number) ?? none,
    has: number => byChunk.has(number),
    all: () => byChunk,
  }
}

/**
 * Whether a chunk that one source was asked for should be asked of a second one: it takes longer
 * than it should. Never of a third.
 * @param leastMs it is given that long in any case
 * @param factor and that many times what it usually takes there
 */
export function isOverdue(
  requests: readonly Request[],
  source: string,
  nowMs: number,
  { leastMs, factor }: { leastMs: number; factor: number },
): boolean {
  const [only] = requests
  if (only === undefined || requests.length > 1 || only.source === source) return false
  return nowMs - only.askedAtMs > Math.max(leastMs, factor * only.expectedMs)
}
