import type { Clock } from '../../base/clock.ts'
import type { Timing } from '../fleet/timing.ts'

/**
 * How a host stands: `Lives`, its lease key is there. `Silent`, it is gone, but the host's guests
 * may still run. `Lost`, it has been gone for so long that none does (timing.ts).
 */
export type Sight = { is: 'Lives' } | { is: 'Silent'; leftMs: number } | { is: 'Lost' }

/** How long hosts have been silent, on the leader's own clock and since it saw it itself. */
export interface Silences {
  /**
   * The leader sees whether a host's lease key is there.
   * @param life the revision of the host's life key; 0 when there is none
   */
  see(host: string, leased: boolean, life: number): void
  /** The store's watch broke: a lease may have come and gone again unseen. */
  doubt(): void
  sight(host: string): Sight
}

/** What it needs. */
export interface SilencesInit {
  timing: Pick<Timing, 'graceMs'>
  /** On a host that is no fleet's there are no leases: every host lives. */
  fenced: boolean
}

interface Silence {
  sinceMs: number
  life: number
}

/** Nothing was seen yet: a host counts as silent from when it is first asked for. */
export function createSilences({ timing, fenced }: SilencesInit, clock: Clock): Silences {
  const living = new Set<string>()
  const silent = new Map<string, Silence>()

  const silence = (host: string): Silence => {
    const known = silent.get(host) ?? { sinceMs: clock.monotonicMs(), life: 0 }
    silent.set(host, known)
    return known
  }

  return {
    see(host, leased, life) {
      if (leased) {
        silent.delete(host)
        living.add(host)
        return
      }
      living.delete(host)
      // Another life: it came back and went again, so its guests may have run until just now.
      if (silent.get(host)?.life !== life) silent.delete(host)
      silence(host).life = life
    },
    doubt() {
      // Hosts with a life key are told apart by it; for the others the count begins anew.
      for (const [host, { life }] of silent) if (life === 0) silent.delete(host)
    },
    sight(host) {
      if (!fenced || living.has(host)) return { is: 'Lives' }
      const leftMs = silence(host).sinceMs + timing.graceMs - clock.monotonicMs()
      return leftMs > 0 ? { is: 'Silent', leftMs } : { is: 'Lost' }
    },
  }
}
