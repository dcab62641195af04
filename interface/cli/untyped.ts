/** Whether a value from outside is an object with named members. */
export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** The text, or nothing when the value is none. */
export function textOf(value: unknown): string {
  return typeof value === 'string' ? value : ''
}

/** The member of a member ..., by a dotted path; undefined where the path ends early. */
export function memberAt(value: unknown, path: string): unknown {
  let current = value
  for (const name of path.split('.')) {
    if (!isRecord(current)) return undefined
    current = current[name]
  }
  return current
}
