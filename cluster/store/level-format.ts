import { crc32 } from 'node:zlib'
import { type JsonValue, parseFrozenJson } from '../../base/json.ts'
import type { Lease } from './state.ts'
import type { Entry, WatchBatch, WatchEvent } from './store.ts'

/** What lies on the disk is not what was written there. Becomes `storeCorrupt` at the outside. */
export class Damage extends Error {}

/**
 * The record that every batch writes anew: what the others must add up to. LevelDB drops damaged
 * parts of its log without a word (its paranoid checks can't be switched on from Node), so that
 * this, the checksum in each record and the acknowledged revision beside the database are what
 * tells.
 */
export interface Meta {
  /** Version of this format. */
  format: 1
  storeId: string
  /** Batches written so far: tells whether a batch that failed is there after all. */
  sequence: number
  revision: number
  /** The newest revision whose history record was deleted. */
  compactedRevision: number
  /** How many entries there are. */
  entries: number
  /** The sum of the entries' checksums, modulo 2^48. */
  digest: number
}

/**
 * The keys of the records, by kind: entries, history by revision, leases and the one meta record.
 */
export const recordKey = {
  meta: 'm!',
  entry: (key: string): string => `e!${key}`,
  history: (revision: number): string => `h!${String(revision).padStart(16, '0')}`,
  lease: (id: string): string => `l!${id}`,
}

/** A record's text: the checksum of key and JSON (CRC-32, 8 hexadecimal digits), then the JSON. */
export function seal(key: string, value: object): string {
  const json = JSON.stringify(value)
  return checksum(key, json).toString(16).padStart(8, '0') + json
}

/**
 * What a record says, frozen.
 * @throws Damage when the checksum does not fit
 */
export function unseal(key: string, text: string): JsonValue {
  const json = text.slice(8)
  if (checksum(key, json) !== Number.parseInt(text.slice(0, 8), 16)) {
    throw new Damage(`the record ${JSON.stringify(key.slice(0, 100))} has a wrong checksum`)
  }
  return parseFrozenJson(json)
}

function checksum(key: string, json: string): number {
  return crc32(`${key}\n${json}`)
}

/** What an entry adds to the digest. */
export function entryDigest(entry: Entry): number {
  return crc32(JSON.stringify([entry.key, entry.modRevision, entry.createRevision, entry.value]))
}

/** `digest` with so much added; stays a whole number from 0 to 2^48. */
export function addDigest(digest: number, amount: number): number {
  return (digest + amount + 2 ** 48) % 2 ** 48
}

type Fields = { readonly [name: string]: JsonValue | undefined }

function fieldsOf(value: JsonValue | undefined): Fields {
  if (typeof value === 'object' && value !== null && !isList(value)) return value
  throw new Damage('a record does not have the form of this version')
}

function isList(value: JsonValue | undefined): value is readonly JsonValue[] {
  return Array.isArray(value)
}

function wholeNumber(value: JsonValue | undefined): number {
  if (typeof value === 'number' && Number.isSafeInteger(value)) return value
  throw new Damage('a record has no number where one belongs')
}

function text(value: JsonValue | undefined): string {
  if (typeof value === 'string') return value
  throw new Damage('a record has no text where one belongs')
}

/** Reads the meta record. */
export function toMeta(value: JsonValue): Meta {
  const fields = fieldsOf(value)
  const { format } = fields
  if (format !== 1) {
    throw new Damage(`its format is ${JSON.stringify(format)}, this program knows 1`)
  }
  return {
    format,
    storeId: text(fields['storeId']),
    sequence: wholeNumber(fields['sequence']),
    revision: wholeNumber(fields['revision']),
    compactedRevision: wholeNumber(fields['compactedRevision']),
    entries: wholeNumber(fields['entries']),
    digest: wholeNumber(fields['digest']),
  }
}

/** Reads an entry's record. */
export function toEntry(value: JsonValue | undefined): Entry {
  const fields = fieldsOf(value)
  if (fields['value'] === undefined) throw new Damage('an entry has no value')
  return Object.freeze({
    key: text(fields['key']),
    value: fields['value'],
    createRevision: wholeNumber(fields['createRevision']),
    modRevision: wholeNumber(fields['modRevision']),
    ...(fields['lease'] === undefined ? {} : { lease: text(fields['lease']) }),
  })
}

/** Reads a lease's record. */
export function toLease(value: JsonValue): Lease {
  const fields = fieldsOf(value)
  return Object.freeze({ id: text(fields['id']), ttlMs: wholeNumber(fields['ttlMs']) })
}

/** Reads the history record of one revision. */
export function toBatch(value: JsonValue): WatchBatch {
  const fields = fieldsOf(value)
  const events = fields['events']
  if (!isList(events)) throw new Damage('a history record has no events')
  const revision = wholeNumber(fields['revision'])
  return { revision, events: events.map(event => toEvent(fieldsOf(event), revision)) }
}

function toEvent({ type, key, entry, previous }: Fields, revision: number): WatchEvent {
  if (type !== 'put' && type !== 'delete') throw new Damage('an event is neither put nor delete')
  return Object.freeze({
    type,
    key: text(key),
    ...(entry === undefined ? {} : { entry: toEntry(entry) }),
    ...(previous === undefined ? {} : { previous: toEntry(previous) }),
    revision,
  })
}
