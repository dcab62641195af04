import type { Clock, Timer } from '../../base/clock.ts'
import type { Endpoint } from './endpoint.ts'

/**
 * Finds writes that nobody will answer: a member hands a write on to the leader, and when that dies
 * just then the write is lost while the member waits, 7 s long. Another term of the Raft protocol
 * means that a leader has gone since the write was sent: it may or may not have been done.
 */
export interface LostWrites {
  /** Does a write, whose signal is aborted when there is nothing left to wait for. */
  watch<Result>(
    endpoint: Endpoint,
    write: (signal: AbortSignal) => Promise<Result>,
  ): Promise<Result>
  /** An answer of etcd was of this term. */
  heard(term: string): void
}

/** Most writes are answered before anybody looks for them. */
const patienceMs = 700
const lookMs = 200
const statusMs = 500

interface Pending {
  endpoint: Endpoint
  sentTerm: number
  sentMs: number
  giveUp: AbortController
}

/** Nothing was written yet. */
export function createLostWrites(clock: Clock): LostWrites {
  const pending = new Set<Pending>()
  let term = 0
  let timer: Timer | undefined

  const heard = (told: string): void => {
    term = Math.max(term, Number(told))
  }
  const isOld = ({ sentMs }: Pending): boolean => clock.monotonicMs() - sentMs >= patienceMs
  const look = async (): Promise<void> => {
    const [oldest] = pending
    if (oldest !== undefined && isOld(oldest)) {
      const options = { timeoutMs: statusMs, needsLeader: false }
      const status = await oldest.endpoint.call('Maintenance.Status', {}, options).catch(() => {})
      // While it looks for a leader it may still find the same.
      if (status !== undefined && status.leader !== '0') heard(status.raftTerm)
      for (const one of pending) if (isOld(one) && one.sentTerm < term) one.giveUp.abort()
    }
    timer = undefined
    lookLater()
  }
  const lookLater = (): void => {
    if (pending.size === 0 || timer !== undefined) return
    timer = clock.setTimer(lookMs, () => {
      look().catch(() => {})
    })
  }

  return {
    heard,
    async watch(endpoint, write) {
      const giveUp = new AbortController()
      const one = { endpoint, sentTerm: term, sentMs: clock.monotonicMs(), giveUp }
      pending.add(one)
      lookLater()
      try {
        return await write(giveUp.signal)
      } finally {
        pending.delete(one)
        if (pending.size === 0) timer?.cancel()
        if (pending.size === 0) timer = undefined
      }
    },
  }
}
