import { type Clock, sleep } from '../../base/clock.ts'
import { failure, messageOf } from '../../base/errors.ts'
import type { EtcdConnection, EtcdExchange } from '../etcd/connection.ts'
import type { RpcEvent, WatchResponse } from '../etcd/messages.ts'
import { RpcFailure } from '../etcd/rpc-failure.ts'
import type { EtcdCodec } from './etcd-codec.ts'
import type { WatchBatch, WatchEvent } from './store.ts'

/** The history before this revision of etcd's is gone. */
export class Compacted extends Error {
  readonly before: number
  constructor(before: number) {
    super(`etcd has forgotten what was before its revision ${before}`)
    this.before = before
  }
}

/** A change of etcd's revision: what of it is ours, and what our keys weigh more than before. */
export interface EtcdChange {
  batch: WatchBatch
  growthBytes: number
}

/** A watch that is not acknowledged within this time is tried at another endpoint. */
const createdMs = 2_000

const wholeStore = { key: Buffer.from([0]), rangeEnd: Buffer.from([0]) }

/** What reading changes needs. */
export interface EtcdChangesComponents {
  connection: EtcdConnection
  codec: EtcdCodec
  clock: Clock
}

/** How reading ends from outside, and what is known meanwhile. */
export interface EtcdChangesOptions {
  /** Ends reading, with an error that nobody is to blame for. */
  signal: AbortSignal
  /** Is given each exchange when it begins. */
  onOpen?: (exchange: EtcdExchange<'Watch.Watch'>) => void
}

/**
 * Every revision of etcd after one, each whole and in order, from one endpoint until that fails:
 * then it throws, and the caller goes on after the last revision it got. One watch over all keys
 * serves: a revision without a gap before it proves that nothing was lost on the way.
 * @throws Compacted, also when a revision is missing; RpcFailure or `unavailable` when the endpoint
 *   fails; etcdValueDamaged
 */
export async function* readChanges(
  afterRevision: number,
  { connection, codec, clock }: EtcdChangesComponents,
  { signal, onOpen }: EtcdChangesOptions,
): AsyncGenerator<EtcdChange> {
  const exchange = await connection.exchange('Watch.Watch')
  onOpen?.(exchange)
  signal.addEventListener('abort', exchange.cancel, { once: true })
  if (signal.aborted) exchange.cancel()
  const late = new AbortController()
  sleep(clock, createdMs, late.signal).then(exchange.cancel, () => {})
  const startRevision = codec.inner(afterRevision) + 1
  exchange.write({ create: { ...wholeStore, startRevision, prevKv: true, fragment: true } })
  const assembly = createAssembly(codec)
  let at = afterRevision
  try {
    for await (const response of exchange.messages()) {
      late.abort()
      assertAlive(response)
      exchange.worked()
      for (const change of assembly.add(response)) {
        if (change.batch.revision <= at) continue
        // A revision that etcd did not show: as good as forgotten.
        if (change.batch.revision !== at + 1)
          throw new Compacted(codec.inner(change.batch.revision))
        at = change.batch.revision
        yield change
      }
    }
    throw new RpcFailure(14, 'etcd ended the watch')
  } catch (error) {
    // What is compacted is so at every endpoint.
    if (!signal.aborted && !(error instanceof Compacted)) exchange.failed(messageOf(error))
    throw error
  } finally {
    late.abort()
    signal.removeEventListener('abort', exchange.cancel)
    exchange.cancel()
  }
}

function assertAlive({ canceled, compactRevision, cancelReason }: WatchResponse): void {
  if (compactRevision !== '0') throw new Compacted(Number(compactRevision))
  if (canceled) throw new RpcFailure(14, `etcd ended the watch: ${cancelReason}`)
}

/** Puts the events of answers together to revisions; etcd may split one over several answers. */
function createAssembly(codec: EtcdCodec) {
  let pending: { revision: string; events: RpcEvent[] } | undefined
  const take = (): EtcdChange[] => {
    if (pending === undefined) return []
    const { revision, events } = pending
    pending = undefined
    return [toChange(codec, codec.told(revision), events)]
  }
  return {
    add({ events, fragment }: WatchResponse): EtcdChange[] {
      const whole: EtcdChange[] = []
      for (const event of events) {
        const revision = event.entry.modRevision
        if (pending?.revision !== revision) whole.push(...take())
        pending ??= { revision, events: [] }
        pending.events.push(event)
      }
      if (!fragment) whole.push(...take())
      return whole
    },
  }
}

function toChange(codec: EtcdCodec, revision: number, events: readonly RpcEvent[]): EtcdChange {
  const ours: WatchEvent[] = []
  let growthBytes = 0
  for (const event of events) {
    assertPrevious(event)
    const seen = codec.event(event)
    if (seen === undefined) continue
    ours.push(seen)
    growthBytes += (event.type === 1 ? 0 : codec.bytes(event.entry)) - codec.bytes(event.previous)
  }
  return { batch: { revision, events: Object.freeze(ours) }, growthBytes }
}

/** What was there before is read by etcd when it sends, and left out when it was compacted. */
function assertPrevious({ type, entry, previous }: RpcEvent): void {
  if (previous !== null || (type === 0 && entry.version === '1')) return
  throw new Compacted(Number(entry.modRevision))
}

/** The error of a watch from a revision that etcd has forgotten. */
export function compactedFailure(revision: number, before: number, codec: EtcdCodec): Error {
  return failure('revisionCompacted', { revision, oldest: codec.told(before) + 1 })
}
