import { sleep } from '../../base/clock.ts'
import { failure, MacfleetError } from '../../base/errors.ts'
import type { ApiClient } from './api-client.ts'
import type { Invocation } from './invocation.ts'
import { createStatusLine } from './status-line.ts'
import { isRecord, memberAt, textOf } from './untyped.ts'

/** One host, as the daemon tells of it. */
export interface MemberView {
  name: string
  state: string
  rack: string
  address: string
  version: string
  isAlive: boolean
  voter: string
  heardAgoMs: number | undefined
}

/** The fleet, as the daemon tells of it; what it left out is empty. */
export interface FleetView {
  mode: string
  host: string
  fleetId: string
  leader: string
  members: MemberView[]
  isStoreAvailable: boolean
  storeKind: string
  storeError: string
  unavailableSince: string
  certificateExpiresAt: string
  recoveringSince: string
  transition: { kind: string; state: string; message: string } | undefined
  warnings: string[]
}

/** How often the daemon is asked whether it is done. */
const askMs = 250
/** While it turns into something else its socket is away: a moment, or as long as etcd may take. */
const awayMs = 90_000

/** Reads how the fleet is. Also answers as it came, for `-o json`. */
export async function readFleet(client: ApiClient): Promise<{ view: FleetView; value: unknown }> {
  const value = await client.request('GET', '/fleet', { timeoutMs: 15_000 })
  return { view: fleetView(value), value }
}

/** What an answer says of the fleet. */
export function fleetView(value: unknown): FleetView {
  const text = (path: string) => textOf(memberAt(value, path))
  const list = (path: string) => {
    const found = memberAt(value, path)
    return Array.isArray(found) ? found : []
  }
  const transition = memberAt(value, 'transition')
  return {
    mode: text('mode'),
    host: text('host'),
    fleetId: text('fleetId'),
    leader: text('leader'),
    members: list('members').filter(isRecord).map(memberView),
    isStoreAvailable: memberAt(value, 'store.isAvailable') === true,
    storeKind: text('store.kind'),
    storeError: text('store.error'),
    unavailableSince: text('store.unavailableSince'),
    certificateExpiresAt: text('certificateExpiresAt'),
    recoveringSince: text('recoveringSince'),
    transition: isRecord(transition)
      ? {
          kind: textOf(transition['kind']),
          state: textOf(transition['state']),
          message: textOf(transition['message']),
        }
      : undefined,
    warnings: list('warnings').map(textOf),
  }
}

function memberView(member: Record<string, unknown>): MemberView {
  const heard = member['heardAgoMs']
  return {
    name: textOf(member['name']),
    state: textOf(member['state']),
    rack: textOf(member['rack']),
    address: textOf(member['address']),
    version: textOf(member['version']),
    isAlive: member['isAlive'] === true,
    voter: textOf(member['voter']),
    heardAgoMs: typeof heard === 'number' ? heard : undefined,
  }
}

/**
 * Waits until what was begun is done, and shows how it goes.
 * @throws transitionFailed; timeout when it takes longer than it may
 */
export async function awaitTransition(
  client: ApiClient,
  invocation: Invocation,
  timeoutMs: number,
): Promise<FleetView> {
  const { clock, signal, stderr } = invocation
  const line = createStatusLine({ stream: stderr, clock })
  const deadlineMs = clock.monotonicMs() + timeoutMs
  let awaySinceMs: number | undefined
  try {
    for (;;) {
      const view = await readFleet(client)
        .then(({ view: found }) => found)
        .catch(error => {
          awaySinceMs ??= clock.monotonicMs()
          const isAway = error instanceof MacfleetError && !signal.aborted
          if (!isAway || clock.monotonicMs() - awaySinceMs > awayMs) throw error
          return undefined
        })
      if (view !== undefined) awaySinceMs = undefined
      const { transition } = view ?? {}
      if (view !== undefined && transition?.state !== 'running') {
        if (transition?.state !== 'failed') return view
        throw failure('transitionFailed', { kind: transition.kind, detail: transition.message })
      }
      if (transition !== undefined) line.show(transition.message)
      if (clock.monotonicMs() > deadlineMs) {
        throw failure('timeout', { what: transition?.message ?? 'the daemon', timeoutMs })
      }
      await sleep(clock, askMs, signal)
    }
  } finally {
    line.clear()
  }
}
