/** What a registry wants to be shown (RFC 9110, section 11.6.1). */
export interface Challenge {
  /** In lower case. */
  scheme: string
  /** Names in lower case. */
  parameters: Record<string, string>
}

const headerCharacters = 4096
const token = /[!#$%&'*+.^_`|~0-9A-Za-z-]+/y
const quoted = /"((?:[^"\\]|\\.)*)"/y

/** Reads WWW-Authenticate; stops at what it does not understand. */
export function parseChallenges(header: string): Challenge[] {
  const text = header.slice(0, headerCharacters)
  const found: Challenge[] = []
  let at = 0
  const take = (pattern: RegExp): RegExpExecArray | null => {
    pattern.lastIndex = at
    const match = pattern.exec(text)
    if (match !== null) at += match[0].length
    return match
  }
  const separators = /[ \t,]*/y
  for (;;) {
    take(separators)
    const name = take(token)?.[0]
    if (name === undefined) return found
    const equals = take(/[ \t]*=[ \t]*/y)
    const current = found.at(-1)
    if (equals === null) {
      found.push({ scheme: name.toLowerCase(), parameters: {} })
      continue
    }
    const value = take(quoted)?.[1]?.replace(/\\(.)/g, '$1') ?? take(token)?.[0]
    if (value === undefined || current === undefined) return found
    current.parameters[name.toLowerCase()] ??= value
  }
}
