import { backoffMs } from '../../base/backoff.ts'
import type { Clock, Timer } from '../../base/clock.ts'
import { type Log, messageOf } from '../../base/log.ts'
import { type Random, randomInteger } from '../../base/random.ts'
import type { AllowList, PeerMember } from './allow-list.ts'
import { chooseNeighbours, orderNeighbours } from './neighbours.ts'

/** How often and how long, in milliseconds. */
const spansMs = {
  tick: 500,
  first: 250,
  most: 10_000,
  /** Of two that would dial each other, the one with the greater id waits about so long. */
  courtesy: 300,
}
const dialsAtOnce = 8
/** From so many failures in a row on, another one is chosen besides. */
const failuresToGiveUp = 2

/** What keeping connections needs. */
export interface RedialComponents {
  clock: Clock
  random: Random
  log: Log
  members: AllowList
  isConnected(peerId: string): boolean
  /** Resolves when the two have greeted. */
  dial(member: PeerMember): Promise<void>
}

/** Keeps a host connected with its neighbours, for as long as it runs. */
export interface Redial {
  /** A connection was opened or ended, or hosts may be back: look again soon. */
  look(): void
  /** Whether a connection with this peer is one that is to be kept. */
  isNeighbour(peerId: string): boolean
  stop(): void
}

interface Try {
  failures: number
  dueMs: number
  dialling: boolean
}

/** The library gives up after five tries, so this is ours: it never does, and never hurries. */
export function startRedial(self: string, components: RedialComponents): Redial {
  const { clock, random, log, members, isConnected, dial } = components
  const tries = new Map<string, Try>()
  let ordered = orderNeighbours(self, members.list())
  let chosen: readonly PeerMember[] = []
  let timer: Timer | undefined
  let stopped = false

  const jitter = (aboutMs: number): number => aboutMs / 2 + randomInteger(random, aboutMs)
  const fails = (peerId: string): boolean => {
    return !isConnected(peerId) && (tries.get(peerId)?.failures ?? 0) >= failuresToGiveUp
  }
  const attempt = async (member: PeerMember, state: Try): Promise<void> => {
    state.dialling = true
    try {
      await dial(member)
      if (state.failures > failuresToGiveUp) log.info({ host: member.name }, 'a host is back')
      state.failures = 0
    } catch (error) {
      state.failures++
      const text = { host: member.name, address: member.address, error: messageOf(error) }
      if (state.failures === failuresToGiveUp + 1) log.warn(text, 'a host can not be reached')
    }
    const waitMs = backoffMs({ firstMs: spansMs.first, mostMs: spansMs.most }, state.failures)
    state.dueMs = clock.monotonicMs() + jitter(waitMs)
    state.dialling = false
  }
  const look = (): void => {
    chosen = chooseNeighbours(ordered, fails)
    const nowMs = clock.monotonicMs()
    let dialling = [...tries.values()].filter(state => state.dialling).length
    for (const member of chosen) {
      const { peerId } = member
      if (isConnected(peerId)) continue
      const waitMs = self > peerId ? jitter(2 * spansMs.courtesy) : 0
      const state = tries.get(peerId) ?? { failures: 0, dueMs: nowMs + waitMs, dialling: false }
      tries.set(peerId, state)
      if (state.dialling || nowMs < state.dueMs || dialling >= dialsAtOnce) continue
      dialling++
      void attempt(member, state)
    }
  }
  const tick = (): void => {
    if (stopped) return
    look()
    timer = clock.setTimer(jitter(spansMs.tick), tick)
  }
  const endFollowing = members.onChange(() => {
    ordered = orderNeighbours(self, members.list())
    for (const peerId of tries.keys()) if (!members.isMember(peerId)) tries.delete(peerId)
    if (!stopped) look()
  })
  tick()
  return {
    look: () => (stopped ? undefined : look()),
    isNeighbour: peerId => chosen.some(member => member.peerId === peerId),
    stop() {
      stopped = true
      timer?.cancel()
      endFollowing()
    },
  }
}
