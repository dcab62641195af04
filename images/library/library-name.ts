import { failure } from '../../base/errors.ts'
import { isDigest } from '../registry/reference.ts'

/** An image of a library, as a user names it. */
export interface LibraryName {
  /** Names of folders and, last, of the layout or the file. */
  path: string[]
  /** Of a layout that holds several. */
  tag?: string
  /** Of the manifest; wins over the tag. */
  digest?: string
}

const part = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$/
const characters = 512

/**
 * Reads `team/base[:TAG][@sha256:HEX]`, with or without `library:` before it. No part begins with
 * a dot, so none leads up or to what is hidden.
 * @param depth names that a path has at most
 * @throws badRequest
 */
export function readLibraryName(text: string, depth: number): LibraryName {
  const wrong = (detail: string) =>
    failure('badRequest', {
      detail: `"${text.slice(0, 80)}" names nothing in a library: ${detail}`,
    })
  const bare = text.replace(/^library:/, '')
  if (bare.length > characters) throw wrong('it is too long')
  const [named = '', digest, ...more] = bare.split('@')
  if (more.length > 0 || (digest !== undefined && !isDigest(digest))) {
    throw wrong('after @ comes sha256: and 64 hex digits')
  }
  const [where = '', tag, ...others] = named.split(':')
  if (others.length > 0 || (tag !== undefined && !part.test(tag))) throw wrong('its tag')
  const path = where.split('/')
  if (path.length > depth) throw wrong(`it is more than ${depth} folders deep`)
  if (!path.every(name => part.test(name))) {
    throw wrong('a name is of letters, digits, `.`, `_` and `-`, and begins with no dot')
  }
  return { path, ...(tag !== undefined && { tag }), ...(digest !== undefined && { digest }) }
}

/** Whether a name in a library's folder is one that can be asked for. */
export function isLibraryPart(name: string): boolean {
  return part.test(name)
}
