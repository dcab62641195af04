import type { EtcdCallOptions, EtcdConnection } from '../etcd/connection.ts'
import type { KeyValue, RangeRequest } from '../etcd/messages.ts'
import { isRefusal } from '../etcd/rpc-failure.ts'

/** Keys in one question to etcd; fewer when their values are large. */
const pageKeys = 256
/** Reads over all tries; another endpoint is asked in between. */
const readMs = 4_000

/** How reads are called. */
export const reading: EtcdCallOptions = { repeatable: true, timeoutMs: readMs }

/** One page of keys. */
export interface EtcdPage {
  found: KeyValue[]
  more: boolean
  /** etcd's revision of which all pages show the state. */
  revision: number
}

/** The newest revision of etcd, as the majority has it. */
export async function readRevision(connection: EtcdConnection): Promise<number> {
  const request = { key: Buffer.from([0]), countOnly: true }
  const { header } = await connection.call('KV.Range', request, reading)
  return Number(header.revision)
}

/**
 * Reads a range as one consistent state, page by page.
 * @param limit at most so many keys
 * @throws RpcFailure, "compacted" among them when it takes so long that the state is gone;
 *   unavailable
 */
export async function* readRange(
  connection: EtcdConnection,
  range: { key: Buffer; rangeEnd: Buffer },
  limit = Number.POSITIVE_INFINITY,
): AsyncGenerator<EtcdPage> {
  let left = limit
  let size = pageKeys
  let at: RangeRequest = range
  for (;;) {
    const request = { ...at, limit: Math.min(left, size) }
    const answer = await connection.call('KV.Range', request, reading).catch(error => {
      if (size === 1 || !isRefusal(error, 'larger than max')) throw error
      return undefined
    })
    if (answer === undefined) {
      size = Math.max(1, size >>> 3)
      continue
    }
    const { entries, more } = answer
    const revision = at.revision ?? Number(answer.header.revision)
    left -= entries.length
    yield { found: entries, more, revision }
    const last = entries.at(-1)
    if (!more || left <= 0 || last === undefined) return
    at = { ...range, key: Buffer.concat([last.key, Buffer.from([0])]), revision }
  }
}
