import type { Kind } from './kind.ts'

/** Where all objects of a kind stand in the store; with a namespace, those of that namespace. */
export function keyPrefix(kind: Pick<Kind, 'group' | 'plural'>, namespace?: string): string {
  const group = kind.group === '' ? 'core' : kind.group
  const base = `/objects/${group}/${kind.plural}/`
  // The slash at the end keeps namespace `a` from seeing what is in `ab`.
  return namespace === undefined ? base : `${base}${namespace}/`
}

/** Where one object stands in the store. */
export function objectKey(
  kind: Pick<Kind, 'group' | 'plural' | 'namespaced'>,
  metadata: { name: string; namespace?: string },
): string {
  const { name, namespace } = metadata
  return kind.namespaced ? `${keyPrefix(kind, namespace ?? '')}${name}` : keyPrefix(kind) + name
}
