import { failure, type MacfleetError } from '../../base/errors.ts'

/** An image in a registry, as users write it. */
export interface ImageReference {
  /** In lower case: `registry.example.test:5000`, `[::1]:5000`. */
  host: string
  /** `team/base` */
  repository: string
  /** `latest` when neither tag nor digest was written. */
  tag?: string
  /** Wins over the tag. */
  digest?: string
}

const referenceCharacters = 512
const repositoryCharacters = 255
const label = '[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?'
const hostPattern = new RegExp(
  `^(?:${label}(?:\\.${label})*|\\[[0-9a-f:]{2,39}(?:\\.[0-9.]+)?\\])(?::([0-9]{1,5}))?$`,
)
const component = '[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*'
const repositoryPattern = new RegExp(`^${component}(?:/${component})*$`)
const tagPattern = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$/
const digestPattern = /^sha256:[0-9a-f]{64}$/

/**
 * Reads `HOST[:PORT]/PATH[:TAG][@sha256:DIGEST]`. The host must be written: a name without one
 * would mean a registry of somebody's choice, and a typing mistake would ask a stranger.
 * @throws referenceInvalid
 */
export function parseReference(text: string): ImageReference {
  const shown = text.length > 100 ? `${text.slice(0, 100)}...` : text
  const invalid = (detail: string): MacfleetError =>
    failure('referenceInvalid', { reference: printable(shown), detail })
  if (text.length > referenceCharacters) {
    throw invalid(`it has more than ${referenceCharacters} characters`)
  }
  if (text.includes('://')) throw invalid('it begins with a scheme, which is not part of it')
  const slash = text.indexOf('/')
  const host = text.slice(0, Math.max(0, slash)).toLowerCase()
  if (slash < 0 || !/[.:]|^localhost$/.test(host)) {
    throw invalid('it does not begin with the host of a registry')
  }
  if (!isRegistryHost(host)) throw invalid(`${printable(host)} is not a host, or its port is none`)
  const at = text.indexOf('@')
  const digest = at < 0 ? undefined : text.slice(at + 1)
  if (digest !== undefined && !digestPattern.test(digest)) {
    throw invalid('what follows the @ is not sha256: and 64 digits in lower-case hex')
  }
  const path = text.slice(slash + 1, at < 0 ? undefined : at)
  const colon = path.indexOf(':')
  const repository = colon < 0 ? path : path.slice(0, colon)
  if (!isRepository(repository)) {
    throw invalid('its path is not made of lower-case letters, digits and single . _ - between /')
  }
  const tag = colon < 0 ? undefined : path.slice(colon + 1)
  if (tag !== undefined && !isTag(tag)) {
    throw invalid('its tag is not 1 to 128 letters, digits, _, . or -')
  }
  const named = { host, repository }
  if (digest !== undefined) return { ...named, ...(tag !== undefined && { tag }), digest }
  return { ...named, tag: tag ?? 'latest' }
}

/** The reference in its full form. */
export function formatReference({ host, repository, tag, digest }: ImageReference): string {
  const tagged = tag === undefined ? '' : `:${tag}`
  return `${host}/${repository}${tagged}${digest === undefined ? '' : `@${digest}`}`
}

/** Whether this is `host` or `host:port`, in lower case. */
export function isRegistryHost(text: string): boolean {
  const match = hostPattern.exec(text)
  if (match === null || text.length > 260) return false
  const port = match[1] === undefined ? 443 : Number(match[1])
  return port >= 1 && port <= 65_535 && URL.canParse(`https://${text}/`)
}

/** Whether this is the path of a repository: `team/base`. */
export function isRepository(text: string): boolean {
  return text.length <= repositoryCharacters && repositoryPattern.test(text)
}

/** Whether this is a tag. */
export function isTag(text: string): boolean {
  return tagPattern.test(text)
}

/** Whether this is a digest of the only kind that we take. */
export function isDigest(text: unknown): text is string {
  return typeof text === 'string' && digestPattern.test(text)
}

/** What somebody else wrote, fit for a message: no control characters. */
function printable(text: string): string {
  return text.replace(/[^\x20-\x7e]/g, '?')
}
