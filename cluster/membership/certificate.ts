import { createHash, createPublicKey, type KeyObject, sign } from 'node:crypto'
import { isIPv4 } from 'node:net'
import { assert } from '../../base/errors.ts'
import type { Random } from '../../base/random.ts'
import * as der from './der.ts'

/** What a certificate says. */
export interface CertificateContent {
  /** Common name of who it is for, and of who signs. */
  subject: string
  issuer: string
  publicKey: KeyObject
  /** Milliseconds since the epoch. */
  notBeforeMs: number
  notAfterMs: number
  /** An authority may sign certificates, and nothing but hosts below it; a host may not sign. */
  authority: boolean
  /** Other names; the caller has checked them. */
  uris?: readonly string[]
  addresses?: readonly string[]
  names?: readonly string[]
}

const oid = {
  commonName: '2.5.4.3',
  ecdsaWithSha256: '1.2.840.10045.4.3.2',
  subjectKeyIdentifier: '2.5.29.14',
  keyUsage: '2.5.29.15',
  subjectAlternativeName: '2.5.29.17',
  basicConstraints: '2.5.29.19',
  authorityKeyIdentifier: '2.5.29.35',
  extendedKeyUsage: '2.5.29.37',
  serverAuthentication: '1.3.6.1.5.5.7.3.1',
  clientAuthentication: '1.3.6.1.5.5.7.3.2',
}

/**
 * An X.509 certificate (RFC 5280, version 3) signed by an ECDSA P-256 key. It is written by hand
 * because it always has this one shape; a library for all shapes costs a signing host 15 MB.
 * @returns PEM
 */
export function makeCertificate(
  content: CertificateContent,
  signingKey: KeyObject,
  { random }: { random: Random },
): string {
  const algorithm = der.sequence(der.objectIdentifier(oid.ecdsaWithSha256))
  const serial = random.bytes(16)
  // Positive, and 16 bytes of which none is lost.
  serial.writeUInt8((serial.readUInt8(0) & 0x7f) | 0x40, 0)
  const body = der.sequence(
    der.tagged(0xa0, der.integer(Buffer.from([2]))),
    der.integer(serial),
    algorithm,
    nameOf(content.issuer),
    der.sequence(der.time(content.notBeforeMs), der.time(content.notAfterMs)),
    nameOf(content.subject),
    content.publicKey.export({ type: 'spki', format: 'der' }),
    der.tagged(0xa3, der.sequence(...extensionsOf(content, createPublicKey(signingKey)))),
  )
  const signature = sign('sha256', body, signingKey)
  return pemOf(der.sequence(body, algorithm, der.bitString(signature)))
}

function nameOf(commonName: string): Buffer {
  const attribute = der.sequence(der.objectIdentifier(oid.commonName), der.utf8String(commonName))
  return der.sequence(der.setOf(attribute))
}

function extensionsOf(content: CertificateContent, issuerKey: KeyObject): Buffer[] {
  const { authority } = content
  const constraints = authority
    ? der.sequence(der.boolean(true), der.integer(Buffer.from([0])))
    : der.sequence()
  // keyCertSign and cRLSign, or digitalSignature; bits count from the left.
  const usage = authority
    ? der.bitString(Buffer.from([0x06]), 1)
    : der.bitString(Buffer.from([0x80]), 7)
  const extensions = [
    extension(oid.basicConstraints, true, constraints),
    extension(oid.keyUsage, true, usage),
    extension(oid.subjectKeyIdentifier, false, der.octetString(keyIdentifier(content.publicKey))),
    extension(
      oid.authorityKeyIdentifier,
      false,
      der.sequence(der.tagged(0x80, keyIdentifier(issuerKey))),
    ),
  ]
  if (authority) return extensions
  const purposes = [oid.serverAuthentication, oid.clientAuthentication].map(der.objectIdentifier)
  extensions.push(extension(oid.extendedKeyUsage, false, der.sequence(...purposes)))
  const names = [
    ...(content.uris ?? []).map(uri => der.tagged(0x86, ascii(uri))),
    ...(content.names ?? []).map(name => der.tagged(0x82, ascii(name))),
    ...(content.addresses ?? []).map(address => der.tagged(0x87, addressBytes(address))),
  ]
  extensions.push(extension(oid.subjectAlternativeName, false, der.sequence(...names)))
  return extensions
}

function extension(identifier: string, critical: boolean, value: Buffer): Buffer {
  const mark = critical ? [der.boolean(true)] : []
  return der.sequence(der.objectIdentifier(identifier), ...mark, der.octetString(value))
}

function ascii(text: string): Buffer {
  assert(/^[\x21-\x7e]+$/.test(text), 'names in certificates are printable ASCII')
  return Buffer.from(text, 'latin1')
}

/** 160 bits of a hash of the key: RFC 7093, section 2, method 1, over all of the key. */
function keyIdentifier(key: KeyObject): Buffer {
  const bytes = key.export({ type: 'spki', format: 'der' })
  return createHash('sha256').update(bytes).digest().subarray(0, 20)
}

/** The bytes of an IP address; the caller has checked that it is one. */
function addressBytes(address: string): Buffer {
  if (isIPv4(address)) return Buffer.from(address.split('.').map(Number))
  // What comes after :: fills the end; an IPv4 tail is two groups.
  const groups = address.replace(/(\d+)\.(\d+)\.(\d+)\.(\d+)$/, (_, ...parts: string[]) => {
    const [a = 0, b = 0, c = 0, d = 0] = parts.slice(0, 4).map(Number)
    return `${(a * 256 + b).toString(16)}:${(c * 256 + d).toString(16)}`
  })
  const [head = '', tail = ''] = groups.split('::')
  const split = (text: string) => (text === '' ? [] : text.split(':'))
  const missing = 8 - split(head).length - split(tail).length
  const all = [...split(head), ...Array.from({ length: missing }, () => '0'), ...split(tail)]
  const bytes = Buffer.alloc(16)
  all.forEach((group, index) => {
    bytes.writeUInt16BE(Number.parseInt(group, 16), index * 2)
  })
  return bytes
}

function pemOf(bytes: Buffer): string {
  const lines = bytes.toString('base64').match(/.{1,64}/g) ?? []
  return `-----BEGIN CERTIFICATE-----\n${lines.join('\n')}\n-----END CERTIFICATE-----\n`
}
