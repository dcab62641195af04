import { timestamp } from '../../base/clock.ts'
import type { Again } from '../../base/work-queue.ts'
import { findCondition, withCondition } from '../../resources/condition.ts'
import { recordOf } from '../object-record.ts'
import { absenceOf } from './parts.ts'
import type { TermContext } from './term-context.ts'

/** Looks at a host: one that is lost can't say so itself, and its Host object is told for it. */
export async function handleHost(host: string, context: TermContext): Promise<Again> {
  const { view, silences, writes, clock, log, events } = context
  const sight = silences.sight(host)
  if (sight.is === 'Lives') return undefined
  if (sight.is === 'Silent') return { againMs: sight.leftMs }
  const known = view.host(host)
  if (known === undefined) return undefined
  const { status } = known.value
  if (findCondition(status?.conditions, 'Ready')?.status === 'Unknown') return undefined
  const message = 'Its lease has ended: nothing is heard of it'
  const ready = { type: 'Ready', status: 'Unknown', reason: 'HostLost', message } as const
  const conditions = withCondition(status?.conditions ?? [], ready, timestamp(clock))
  const { key, modRevision } = known.entry
  const value = recordOf({ ...known.value, status: { ...status, conditions } }) as object
  const written = await writes.write({
    compare: [{ key, modRevision }, ...absenceOf(host, view)],
    operations: [{ put: key, value }],
  })
  if (!written) return { againMs: 1_000 }
  log.warn({ host }, 'a host is lost')
  events.record(known.value, { type: 'Warning', reason: 'HostLost', message })
  return undefined
}
