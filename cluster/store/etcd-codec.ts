import { failure } from '../../base/errors.ts'
import { parseFrozenJson } from '../../base/json.ts'
import type { KeyValue, RpcCompare, RpcEvent } from '../etcd/messages.ts'
import type { Compare, Entry, WatchEvent } from './store.ts'

/** How our keys and revisions are written in etcd. */
export interface EtcdCodecInit {
  /** Every key of ours begins with it in etcd. */
  prefix: string
  /** Added to etcd's revisions. */
  revisionBase: number
}

/** Says our things in etcd's words and back. */
export interface EtcdCodec {
  key(key: string): Buffer
  /** The keys that begin with `prefix`, or those of them that sort after `afterKey`. */
  range(prefix: string, afterKey?: string): { key: Buffer; rangeEnd: Buffer }
  /** A revision of etcd's as we tell it. */
  told(revision: string | number): number
  /** A told revision as etcd counts it; 0 or less when it is older than this etcd. */
  inner(revision: number): number
  compare(compare: Compare): RpcCompare
  /** @throws etcdValueDamaged when the value is none of ours */
  entry(found: KeyValue): Entry
  /** An event of etcd's; undefined when its key is none of ours. @throws etcdValueDamaged */
  event(event: RpcEvent): WatchEvent | undefined
  /** What an entry weighs, as entryBytes counts it; 0 when its key is none of ours. */
  bytes(found: KeyValue | null): number
}

/** Pure; keys are ASCII. */
export function createEtcdCodec({ prefix, revisionBase }: EtcdCodecInit): EtcdCodec {
  const prefixBytes = Buffer.from(prefix, 'latin1')
  const isOurs = (key: Buffer): boolean =>
    key.length > prefixBytes.length && key.subarray(0, prefixBytes.length).equals(prefixBytes)
  const key = (name: string): Buffer => Buffer.from(prefix + name, 'latin1')
  const nameOf = (bytes: Buffer): string => bytes.toString('latin1', prefixBytes.length)
  const told = (revision: string | number): number => Number(revision) + revisionBase
  const inner = (revision: number): number => revision - revisionBase

  /** What a key is compared with: a revision from before this etcd is no key's. */
  const expected = (revision: number): number =>
    revision === 0 ? 0 : inner(revision) > 0 ? inner(revision) : -1

  const entry = (found: KeyValue): Entry => {
    const lease = found.lease === '0' ? {} : { lease: found.lease }
    return Object.freeze({
      key: nameOf(found.key),
      value: parseValue(found),
      createRevision: told(found.createRevision),
      modRevision: told(found.modRevision),
      ...lease,
    })
  }

  return {
    key,
    range(under, afterKey) {
      const all = prefix + under
      // The next key after K is K with a zero byte behind it; the end is the prefix, one larger.
      const from = afterKey !== undefined && afterKey >= under ? `${prefix}${afterKey}\0` : all
      const last = all.charCodeAt(all.length - 1)
      const end = all.slice(0, -1) + String.fromCharCode(last + 1)
      return { key: Buffer.from(from, 'latin1'), rangeEnd: Buffer.from(end, 'latin1') }
    },
    told,
    inner,
    compare(compare) {
      const about = { key: key(compare.key), result: 0 } as const
      return 'modRevision' in compare
        ? { ...about, target: 2, modRevision: expected(compare.modRevision) }
        : { ...about, target: 1, createRevision: expected(compare.createRevision) }
    },
    entry,
    event(event) {
      if (!isOurs(event.entry.key)) return undefined
      const about = { key: nameOf(event.entry.key), revision: told(event.entry.modRevision) }
      const before = event.previous === null ? {} : { previous: entry(event.previous) }
      return Object.freeze(
        event.type === 1
          ? { type: 'delete', ...before, ...about }
          : { type: 'put', entry: entry(event.entry), ...before, ...about },
      )
    },
    bytes: found =>
      found === null || !isOurs(found.key)
        ? 0
        : found.key.length - prefixBytes.length + found.value.length,
  }
}

function parseValue({ key, value }: KeyValue) {
  try {
    return parseFrozenJson(value.toString())
  } catch (cause) {
    throw failure('etcdValueDamaged', { key: key.toString('latin1') }, { cause })
  }
}
