import { lacking } from './amounts.ts'
import type { Keeps } from './keeps.ts'
import { notReady, objections } from './objections.ts'
import { type Obstacle, obstacle, summarize } from './obstacle.ts'
import { fitsBeside, refusalOf, type Search } from './search.ts'
import type { HostView, Reason } from './types.ts'
import type { Verdicts } from './verdicts.ts'

/** Why machines have no place. Machines alike have the same reasons, made once. */
export interface Reasons {
  of(search: Search): Reason[]
}

type Kept = Pick<Keeps, 'in'>

/**
 * Nothing was asked yet.
 * @param kept at the machines' turns or later: it makes no difference to who had no host then
 */
export function createReasons(kept: Kept): Reasons {
  const known = new Map<Verdicts, Map<string, Reason[]>>()
  return {
    of(search) {
      const { wanted, verdicts, room } = search
      if (wanted.anchor !== undefined) return anchoredReasons(search, kept, wanted.anchor)
      if (wanted.refusals?.length) return reasonsFor(search, kept)
      const alike = known.get(verdicts) ?? new Map<string, Reason[]>()
      known.set(verdicts, alike)
      const key = Object.values(room).join(' ')
      const reasons = alike.get(key) ?? reasonsFor(search, kept)
      alike.set(key, reasons)
      return reasons
    },
  }
}

function reasonsFor(search: Search, kept: Kept): Reason[] {
  const { state } = search
  const found: Obstacle[][] = []
  for (let slot = 0; slot < state.table.size; slot++) {
    const host = state.table.at(slot)
    if (host !== undefined) found.push(obstaclesOf(search, kept, host, slot))
  }
  if (found.length === 0) return [{ hosts: 0, text: 'there are no hosts' }]
  const objecting = found.filter(obstacles => obstacles.length > 0)
  return summarize(objecting, state.bounds.reasons)
}

function anchoredReasons(search: Search, kept: Kept, anchor: string): Reason[] {
  const { state } = search
  const slot = state.table.slotOf(anchor)
  const host = slot === undefined ? undefined : state.table.at(slot)
  const obstacles =
    slot === undefined || host === undefined
      ? [obstacle('it is not in the fleet')]
      : obstaclesOf(search, kept, host, slot)
  if (obstacles.length === 0) return []
  const texts = obstacles.map(({ text }) => text)
  return [{ hosts: 1, text: `${anchor} has its disk: ${texts.join('; ')}` }]
}

/** All that keeps a machine off a host; empty when it may go there. */
export function obstaclesOf(search: Search, kept: Kept, host: HostView, slot: number): Obstacle[] {
  const { wanted, room } = search
  const { table } = search.state
  if (wanted.anchor !== undefined && wanted.anchor !== host.name) {
    return [obstacle(`its disk is on ${wanted.anchor}`)]
  }
  const found = wanted.anchor === undefined ? objections(wanted, host) : []
  if (wanted.anchor !== undefined && !host.ready) found.push(obstacle(notReady))
  const refusal = refusalOf(search, slot)
  if (refusal !== undefined) {
    const text = `it refused: ${refusal.reason}`
    found.push({ kind: 'refused', text, common: () => 'they refused it' })
  }
  const used = table.used(host.name)
  const reserved = { ...used, cpu: used.nanocores / 1e9, diskBytes: 0 }
  found.push(...lacking(wanted.request, reserved, host.allocatable))
  if (room.macosGuests > 0 && used.macosGuests >= host.macosGuestsMost) {
    const most = host.macosGuestsMost
    found.push(obstacle(`the most macOS guests of a host is ${most}, and there are as many`))
  }
  const here = kept.in(slot)
  if (found.length === 0 && here !== undefined && !fitsBeside(table.free, slot, room, here.room)) {
    const { namespace, name } = here.for
    const text = `what is free is kept for ${namespace}/${name}`
    found.push({ kind: 'kept', text, common: () => 'what is free is kept for others that wait' })
  }
  return found
}
