import { createHash } from 'node:crypto'
import { isIP, isIPv6 } from 'node:net'
import { failure } from '../../base/errors.ts'

/** Where a host's peer port is. */
export interface PeerAddress {
  /** An IP address. */
  host: string
  peerPort: number
}

/** What a join token carries. */
export interface JoinToken {
  id: string
  /** Lets in who has it, as often as the token may be used. */
  secret: string
  /** `fingerprintOf` the authority that signs hosts: the joiner trusts nobody else. */
  fingerprint: string
  /** Hosts of the fleet, for when the rack has none that answers mDNS. */
  addresses: readonly PeerAddress[]
}

const version = 'mf1'
const mostCharacters = 2_048
const shape = /^([a-z0-9]{10})\.([\w-]{22})\.([\w-]{43})\.([\w-]*)\.([\w-]{6})$/

/** One line that can be copied: `mf1.ID.SECRET.FINGERPRINT.ADDRESSES.CHECK`. */
export function encodeToken({ id, secret, fingerprint, addresses }: JoinToken): string {
  const places = Buffer.from(addresses.map(addressText).join(',')).toString('base64url')
  const body = [version, id, secret, fingerprint, places].join('.')
  return `${body}.${checkOf(body)}`
}

/**
 * Reads what somebody pasted; spaces and line breaks around and inside it are left out.
 * @throws tokenMalformed, saying whether it is no token, of another version, cut off or mistyped
 */
export function decodeToken(pasted: string): JoinToken {
  const malformed = (detail: string) => failure('tokenMalformed', { detail })
  if (pasted.length > mostCharacters) throw malformed('it is too long')
  const text = pasted.replace(/\s+/g, '')
  const [found = '', ...rest] = text.split('.')
  if (!/^mf\d+$/.test(found)) throw malformed('it does not begin with mf1')
  if (found !== version) throw malformed(`its form ${found} is not known to this macfleet`)
  const parts = shape.exec(rest.join('.'))
  if (parts === null) throw malformed('a part is missing or has a character too many')
  const [, id = '', secret = '', fingerprint = '', places = '', check = ''] = parts
  if (checkOf(text.slice(0, text.lastIndexOf('.'))) !== check) {
    throw malformed('a character is wrong')
  }
  const listed = Buffer.from(places, 'base64url').toString()
  const addresses = listed === '' ? [] : listed.split(',').map(parseAddress)
  if (addresses.includes(undefined)) throw malformed('it holds an address that is none')
  return { id, secret, fingerprint, addresses: addresses.filter(each => each !== undefined) }
}

/** An address and its port as in a URL. */
export function addressText({ host, peerPort }: PeerAddress): string {
  return `${isIPv6(host) ? `[${host}]` : host}:${peerPort}`
}

function parseAddress(text: string): PeerAddress | undefined {
  const [, bracketed, plain, port] = /^(?:\[([^\]]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(text) ?? []
  const host = bracketed ?? plain ?? ''
  const peerPort = Number(port)
  if (isIP(host) === 0 || !(peerPort >= 1 && peerPort <= 65_535)) return undefined
  return { host, peerPort }
}

/** Finds a slip of the hand, nothing more: a forged token fails by its secret. */
function checkOf(body: string): string {
  return createHash('sha256').update(body).digest('base64url').slice(0, 6)
}
