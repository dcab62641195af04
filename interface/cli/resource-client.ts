import type { IncomingMessage } from 'node:http'
import { failure } from '../../base/errors.ts'
import { defaultLimits } from '../../base/limits.ts'
import type { Resource } from '../../resources/kind.ts'
import type { Table } from '../../resources/table.ts'
import type { ApiClient, RequestOptions } from './api-client.ts'
import type { KindName } from './kinds.ts'
import { isRecord, memberAt, textOf } from './untyped.ts'

/** Asks for a Table and takes anything else if there is none (Kubernetes API concepts). */
export const tableAccept = 'application/json;as=Table;v=v1;g=meta.k8s.io,application/json'

/** Which objects of a kind are meant. */
export interface Selection {
  /** One namespace; undefined for all of them. */
  namespace?: string
  labelSelector?: string
  fieldSelector?: string
}

/** A list with the revision that it shows. */
export interface ResourceList {
  items: Resource[]
  resourceVersion: string
}

/** The path of a kind's objects, in one namespace or in all. */
export function collectionPath(kind: KindName, namespace?: string): string {
  const root = kind.group === '' ? `/api/${kind.version}` : `/apis/${kind.group}/${kind.version}`
  const scope = kind.namespaced && namespace !== undefined
  return scope
    ? `${root}/namespaces/${encodeURIComponent(namespace)}/${kind.plural}`
    : `${root}/${kind.plural}`
}

/** The path of one object. */
export function objectPath(kind: KindName, namespace: string, name: string): string {
  return `${collectionPath(kind, namespace)}/${encodeURIComponent(name)}`
}

/** The value as an object of the API. Throws answerInvalid when it is none. */
export function asResource(value: unknown, request: string): Resource {
  if (isResource(value)) return value
  throw failure('answerInvalid', { request, detail: 'it is no object of the API' })
}

function isResource(value: unknown): value is Resource {
  return (
    isRecord(value) &&
    typeof value['apiVersion'] === 'string' &&
    typeof value['kind'] === 'string' &&
    isRecord(value['metadata'])
  )
}

/** Whether the value is a Table with its columns and rows. */
export function isTable(value: unknown): value is Table {
  return isRecord(value) && value['kind'] === 'Table' && Array.isArray(value['rows'])
}

/** Reads one object. */
export async function getObject(
  client: ApiClient,
  kind: KindName,
  namespace: string,
  name: string,
): Promise<Resource> {
  const path = objectPath(kind, namespace, name)
  return asResource(await client.request('GET', path), `GET ${path}`)
}

/** Changes the named members of one object (RFC 7396), or of its path below, and reads it back. */
export async function mergeObject(
  client: ApiClient,
  kind: KindName,
  at: { namespace: string; name: string },
  patch: unknown,
): Promise<Resource> {
  const path = objectPath(kind, at.namespace, at.name)
  const options = { body: patch, contentType: 'application/merge-patch+json' }
  return asResource(await client.request('PATCH', path, options), `PATCH ${path}`)
}

/** Creates an object and reads it back as stored. */
export async function createObject(
  client: ApiClient,
  kind: KindName,
  namespace: string,
  object: unknown,
): Promise<Resource> {
  const path = collectionPath(kind, namespace)
  return asResource(await client.request('POST', path, { body: object }), `POST ${path}`)
}

/** Asks for the deletion of an object; it may stay for a while with a deletionTimestamp. */
export async function deleteObject(
  client: ApiClient,
  kind: KindName,
  at: { namespace: string; name: string },
  gracePeriodSeconds?: number,
): Promise<void> {
  const body = { apiVersion: 'v1', kind: 'DeleteOptions', gracePeriodSeconds }
  await client.request('DELETE', objectPath(kind, at.namespace, at.name), { body })
}

/** Follows a list through its pages; hands over each page as it was answered. */
async function* pages(
  client: ApiClient,
  kind: KindName,
  selection: Selection,
  accept: string,
): AsyncGenerator<unknown> {
  const path = collectionPath(kind, selection.namespace)
  let next: string | undefined
  for (let page = 0; page < defaultLimits.clientListPages; page++) {
    const query = { ...selectors(selection), continue: next }
    const answer = await client.request('GET', path, { accept, query })
    yield answer
    next = textOf(memberAt(answer, 'metadata.continue')) || undefined
    if (next === undefined) return
  }
  const detail = `the list has more than ${defaultLimits.clientListPages} pages`
  throw failure('answerInvalid', { request: `GET ${path}`, detail })
}

function selectors(selection: Selection): Record<string, string | undefined> {
  const { labelSelector, fieldSelector } = selection
  return { labelSelector, fieldSelector }
}

/** Lists objects, all pages. */
export async function listObjects(
  client: ApiClient,
  kind: KindName,
  selection: Selection,
): Promise<ResourceList> {
  const request = `GET ${collectionPath(kind, selection.namespace)}`
  const items: Resource[] = []
  let resourceVersion = ''
  for await (const page of pages(client, kind, selection, 'application/json')) {
    const listed = isRecord(page) ? page['items'] : undefined
    if (!Array.isArray(listed)) throw failure('answerInvalid', { request, detail: 'it is no list' })
    const type = { apiVersion: groupVersion(kind), kind: kind.kind }
    // Items of a list may leave out their type, as Kubernetes' own do; printed alone they need it.
    for (const item of listed) items.push(asResource({ ...type, ...item }, request))
    resourceVersion = textOf(memberAt(page, 'metadata.resourceVersion'))
  }
  return { items, resourceVersion }
}

/** Lists objects as the table that the server prints, all pages in one. */
export async function listTable(
  client: ApiClient,
  kind: KindName,
  selection: Selection,
): Promise<Table> {
  let table: Table | undefined
  for await (const page of pages(client, kind, selection, tableAccept)) {
    if (!isTable(page)) {
      const request = `GET ${collectionPath(kind, selection.namespace)}`
      throw failure('answerInvalid', { request, detail: 'it is no table' })
    }
    table = table === undefined ? page : { ...page, rows: [...table.rows, ...page.rows] }
  }
  if (table === undefined) throw new Error('a list has at least one page')
  return table
}

/** Reads one object as a table of one row. */
export async function getTable(
  client: ApiClient,
  kind: KindName,
  namespace: string,
  name: string,
): Promise<Table> {
  const path = objectPath(kind, namespace, name)
  const answer = await client.request('GET', path, { accept: tableAccept })
  if (isTable(answer)) return answer
  throw failure('answerInvalid', { request: `GET ${path}`, detail: 'it is no table' })
}

/** Opens a watch from a revision on; its answer is one JSON event a line. */
export function openWatch(
  client: ApiClient,
  kind: KindName,
  selection: Selection,
  options: { resourceVersion: string } & Pick<RequestOptions, 'accept' | 'signal'>,
): Promise<IncomingMessage> {
  const { resourceVersion, accept, signal } = options
  const query = {
    ...selectors(selection),
    watch: 'true',
    allowWatchBookmarks: 'true',
    resourceVersion,
  }
  return client.stream('GET', collectionPath(kind, selection.namespace), { accept, signal, query })
}

/** The apiVersion of a kind's objects. */
export function groupVersion(kind: KindName): string {
  return kind.group === '' ? kind.version : `${kind.group}/${kind.version}`
}
