import { failure } from '../base/errors.ts'
import { keyPrefix } from '../resources/keys.ts'
import type { Kind, Resource } from '../resources/kind.ts'
import { isName } from '../resources/metadata.ts'
import { objectOf } from './object-record.ts'
import type { ListSelection, ObjectList, ObjectsContext } from './object-types.ts'

/** Entries read at once when a filter passes over many, so that no page holds the whole store. */
const scanEntries = 500

interface Position {
  /** The store's revision at the first page. */
  revision: number
  afterKey: string
}

/** See Objects.list. */
export async function listObjects<T extends Resource>(
  context: ObjectsContext,
  kind: Kind<T>,
  selection: ListSelection<T>,
): Promise<ObjectList<T>> {
  const prefix = prefixOf(kind, selection.namespace)
  const { limit } = selection
  const start = selection.continue ? parseToken(selection.continue, prefix) : undefined
  let revision = start?.revision
  let afterKey = start?.afterKey
  const items: T[] = []
  for (;;) {
    const page = await context.store.list(prefix, {
      ...(limit === undefined ? {} : { limit: pageEntries(limit, selection) }),
      ...(afterKey === undefined ? {} : { afterKey }),
    })
    revision ??= page.revision
    for (const [index, entry] of page.entries.entries()) {
      const object = objectOf<T>(entry)
      afterKey = entry.key
      if (selection.matches?.(object) === false) continue
      items.push(object)
      const isLast = index === page.entries.length - 1 && !page.more
      if (items.length === limit && !isLast) {
        const token = formatToken({ revision, afterKey })
        return { items, resourceVersion: String(revision), continue: token }
      }
    }
    if (!page.more) return { items, resourceVersion: String(revision) }
  }
}

/**
 * Where the objects of a kind stand.
 * @throws badRequest for a namespace that can't be
 */
export function prefixOf(kind: Kind, namespace: string | undefined): string {
  if (namespace === undefined || isName(namespace)) return keyPrefix(kind, namespace)
  throw failure('badRequest', { detail: `no namespace can be named ${namespace.slice(0, 80)}` })
}

function pageEntries<T extends Resource>(limit: number, selection: ListSelection<T>): number {
  return selection.matches === undefined ? limit : Math.max(limit, scanEntries)
}

function formatToken(position: Position): string {
  const text = JSON.stringify([position.revision, position.afterKey])
  return Buffer.from(text).toString('base64url')
}

/**
 * Tokens come back from clients: nothing in them is trusted but what would be a token of this
 * list.
 */
function parseToken(token: string, prefix: string): Position {
  try {
    const parsed: unknown = JSON.parse(Buffer.from(token, 'base64url').toString())
    if (Array.isArray(parsed) && parsed.length === 2) {
      const [revision, afterKey]: unknown[] = parsed
      const isRevision = typeof revision === 'number' && Number.isSafeInteger(revision)
      const isKey = typeof afterKey === 'string' && /^[!-~]{1,1024}$/.test(afterKey)
      if (isRevision && revision > 0 && isKey && afterKey.startsWith(prefix)) {
        return { revision, afterKey }
      }
    }
  } catch {
    // Falls through to the refusal.
  }
  throw failure('badRequest', { detail: 'continue is not a token of this list' })
}
