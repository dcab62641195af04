import type { Amounts } from '../../resources/host.ts'

/** What a host says of itself by gossip. A hint, never the ground of a decision by itself. */
export interface HostFacts {
  /** The host's name, from the member list by the peer that signed; never from the message. */
  host: string
  version: string
  /** Whether it takes machines at all. */
  ready: boolean
  allocatable: Amounts
  /** What it has promised to guests. */
  reserved: Amounts
  /** 0 to 1. */
  cpuFraction: number
  load1: number
  memoryUsedBytes: number
  diskFreeBytes: number
  /** Whether it may hold an image: a Bloom filter, so yes may be wrong and no never is. */
  mayHoldImage(digest: string): boolean
  /** Monotonic time of ours at which it came. */
  receivedAtMs: number
}

/** The newest facts of every host that was heard, this one included. */
export interface FactsView {
  of(host: string): HostFacts | undefined
  all(): HostFacts[]
  /** Called with the name of the host whose facts are new. @returns to be called to end it */
  onChange(listener: (host: string) => void): () => void
}

/** Nobody was heard: a single host, or a test that is not about facts. */
export const noFacts: FactsView = { of: () => undefined, all: () => [], onChange: () => () => {} }
