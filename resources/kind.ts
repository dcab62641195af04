import type { TObject } from 'typebox'
import type { Metadata } from './metadata.ts'

/** Any object of the API. */
export interface Resource {
  apiVersion: string
  kind: string
  metadata: Metadata
  spec?: unknown
  status?: unknown
}

/** One printed column of a kind's table. */
export interface Column<Object extends Resource> {
  name: string
  description: string
  type: 'string' | 'integer'
  /** 0 is always shown, 1 with `-o wide` only. */
  priority: 0 | 1
  /** The cell's text; `nowMs` is the wall time, for ages. */
  cell(object: Object, nowMs: number): string | number
}

/**
 * Everything the API, the command line and the documents know of a kind. Adding a kind is one file
 * that exports one of these, and one line in kinds.ts.
 */
export interface Kind<Object extends Resource = Resource> {
  kind: string
  /** The API group: `macfleet.dev`, or empty for Kubernetes' core kinds. */
  group: string
  version: string
  plural: string
  singular: string
  shortNames: readonly string[]
  namespaced: boolean
  /** Who it is for, in a sentence. */
  description: string
  /** The whole object's schema: strict, with defaults and a description per field. */
  schema: TObject
  /** Whether `status` is written apart from the rest, by the status subresource. */
  hasStatus: boolean
  columns: readonly Column<Object>[]
  /** What a schema can't say: returns each wrong field's path and what is wrong with it. */
  check?(object: Object): { field: string; message: string }[]
  /**
   * Given to every new object, so that a deletion waits until whoever holds something for it (a
   * guest, layers) has let go and removes it (Kubernetes, Finalizers).
   */
  finalizer?: string
  /** Paths of spec (dotted) that can't change after creation. */
  immutable?: readonly string[]
}

/** `macfleet.dev/v1`, or `v1` for the core group. */
export function apiVersionOf(kind: { group: string; version: string }): string {
  return kind.group === '' ? kind.version : `${kind.group}/${kind.version}`
}

/** `virtualmachines.macfleet.dev`, as messages name a resource. */
export function resourceName(kind: { group: string; plural: string }): string {
  return kind.group === '' ? kind.plural : `${kind.plural}.${kind.group}`
}

/** The column that every namespaced or other object begins with. */
export const nameColumn: Column<Resource> = {
  name: 'Name',
  description: 'Name, unique in its namespace.',
  type: 'string',
  priority: 0,
  cell: object => object.metadata.name,
}
