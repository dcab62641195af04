import { failure } from '../../base/errors.ts'

/** A disk on a web server, as a user names it. */
export interface DiskUrl {
  url: URL
  /** Of the file: `sha256:` or `sha512:` and the hash in hex. */
  digest: string | undefined
}

const fragment = /^#(sha256|sha512)=([0-9a-f]+)$/
const hashLength: Record<string, number> = { sha256: 64, sha512: 128 }

/**
 * Reads `https://HOST/PATH[#sha256=HEX]`. Plain http only where a digest says what has to come:
 * anybody on the way could send another disk.
 * @param digest of the file, where it is said apart from the URL
 * @throws badRequest
 */
export function readDiskUrl(text: string, digest?: string): DiskUrl {
  const wrong = (detail: string) => failure('badRequest', { detail: `the URL of a disk ${detail}` })
  if (!URL.canParse(text)) throw wrong('is not one')
  const url = new URL(text)
  const { protocol, username, password, hash } = url
  if (username !== '' || password !== '')
    throw wrong('holds credentials, which everybody could see')
  const named = fragment.exec(hash)
  const [, algorithm = '', hex = ''] = named ?? []
  if (hash !== '' && hex.length !== hashLength[algorithm]) {
    throw wrong(`ends with ${hash.slice(0, 20)}, and should with #sha256=HEX`)
  }
  const inUrl = named === null ? undefined : `${algorithm}:${hex}`
  if (inUrl !== undefined && digest !== undefined && inUrl !== digest) {
    throw wrong('names another digest than the one beside it')
  }
  const wanted = digest ?? inUrl
  if (protocol !== 'https:' && protocol !== 'http:') throw wrong('begins with https://')
  if (protocol === 'http:' && wanted === undefined) {
    throw wrong('is of plain http: it needs a digest, since anybody on the way could change it')
  }
  url.hash = ''
  return { url, digest: wanted }
}
