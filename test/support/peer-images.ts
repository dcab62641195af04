import { createHash, randomBytes } from 'node:crypto'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { systemClock } from '../../base/clock.ts'
import { randomUuid, systemRandom } from '../../base/random.ts'
import {
  type AuthorityPair,
  createAuthorityPair,
  issueCertificate,
  newKeyPair,
  privateKeyText,
} from '../../cluster/membership/authority.ts'
import { identityUri } from '../../cluster/membership/identity.ts'
import { imageDigest } from '../../images/encode-config.ts'
import { folderName, sealImageFolder } from '../../images/image-folder.ts'
import type { ImageConfig } from '../../images/image-record.ts'
import {
  blockBytes,
  chunkBytes,
  digestOf,
  type Extent,
  encodeLayerIndex,
  extentBytes,
  type LayerIndex,
} from '../../images/layer-index.ts'
import type { ServedImage } from '../../images/peers/served-images.ts'
import type { TransferTls } from '../../images/transfer/transfers.ts'

const components = { clock: systemClock, random: systemRandom }

/** The authority of a fleet, and certificates by it. */
export interface PeerAuthority {
  fleetId: string
  pair: AuthorityPair
}

/** A host as others see it: its certificate, and what is written in it. */
export interface PeerHost {
  name: string
  hostId: string
  identity: string
  tls: TransferTls
}

/** Makes the authority of a fleet of its own. */
export function makePeerAuthority(): PeerAuthority {
  const fleetId = randomUuid(systemRandom)
  return { fleetId, pair: createAuthorityPair({ fleetId, generation: 1 }, components) }
}

/**
 * Makes a host of that fleet.
 * @param atMs the wall time at which its certificate is made
 * @param hostId of the membership; the same one again for a certificate that is renewed
 */
export function makePeerHost(
  { fleetId, pair }: PeerAuthority,
  name: string,
  { atMs = Date.now(), hostId = randomUuid(systemRandom) } = {},
): PeerHost {
  const { publicKey, privateKey } = newKeyPair()
  const identity = { fleetId, name, peerId: `peer${name.replace(/[^a-z0-9]/g, '')}`, hostId }
  const certificate = issueCertificate(
    'hosts',
    pair.hosts,
    { identity, address: '127.0.0.1', publicKey },
    { ...components, clock: { ...systemClock, wallMs: () => atMs } },
  )
  const authorities = pair.hosts.certificate
  const tls = { certificate, key: privateKeyText(privateKey), authorities }
  return { name, hostId, identity: identityUri(identity), tls }
}

/** An image's folder, and what is in it. */
export interface PeerImage {
  served: ServedImage
  /** Of its layers, base first. */
  indexes: LayerIndex[]
  /** The bytes of its disk. */
  disk: Buffer
}

/**
 * Makes the folder of an image.
 * @param layers the bytes of each layer's disk, base first; blocks of zeros are as in the layer
 * below
 */
export async function makePeerImage(
  folder: string,
  layers: readonly Buffer[],
  kernel?: Buffer,
): Promise<PeerImage> {
  const sizeBytes = layers[0]?.length ?? 0
  const indexes = layers.map(indexOf)
  const encoded = indexes.map(encodeLayerIndex)
  const disk = Buffer.alloc(sizeBytes)
  for (const [at, index] of indexes.entries()) {
    for (const { offsetBytes, lengthBytes } of index.chunks.flatMap(each => each.extents)) {
      layers[at]?.copy(disk, offsetBytes, offsetBytes, offsetBytes + lengthBytes)
    }
  }
  const sum = (bytes: Buffer) => digestOf(createHash('sha256').update(bytes).digest())
  const config: ImageConfig = {
    version: 1,
    arch: 'x86_64',
    machine: 'linux',
    firmware: 'bios',
    virtualSizeBytes: sizeBytes,
    layers: indexes.map(({ chunks }, at) => ({
      digest: sum(encoded[at] ?? Buffer.alloc(0)),
      dataBytes: chunks.reduce((all, { extents }) => all + extentBytes(extents), 0),
      chunkCount: chunks.length,
      extentCount: chunks.reduce((all, { extents }) => all + extents.length, 0),
    })),
    ...(kernel === undefined ? {} : { boot: { kernelDigest: sum(kernel), commandLine: '' } }),
  }
  const digest = imageDigest(config)
  const path = join(folder, folderName(digest))
  mkdirSync(path)
  writeFileSync(join(path, 'disk.raw'), disk)
  if (kernel !== undefined) writeFileSync(join(path, 'kernel'), kernel)
  const at = new Date(0).toISOString()
  const state = { format: 'raw', importedAt: at, lastUsedAt: at, pinned: false, users: [] } as const
  await sealImageFolder(path, { config, state: { ...state, users: [] }, layers: encoded })
  return { served: { digest, folder: path, config }, indexes, disk }
}

/** A chunk for each MiB, whatever an import would make. */
function indexOf(bytes: Buffer): LayerIndex {
  const chunks: LayerIndex['chunks'] = []
  for (let start = 0; start < bytes.length; start += chunkBytes) {
    const extents = dataIn(bytes, start, Math.min(start + chunkBytes, bytes.length))
    const hash = createHash('sha256')
    for (const { offsetBytes, lengthBytes } of extents) {
      hash.update(bytes.subarray(offsetBytes, offsetBytes + lengthBytes))
    }
    if (extents.length > 0) chunks.push({ digest: digestOf(hash.digest()), extents })
  }
  return { virtualSizeBytes: bytes.length, chunks, zeros: [] }
}

function dataIn(bytes: Buffer, start: number, end: number): Extent[] {
  const extents: Extent[] = []
  for (let at = start; at < end; at += blockBytes) {
    if (bytes.subarray(at, at + blockBytes).every(byte => byte === 0)) continue
    const last = extents.at(-1)
    if (last !== undefined && last.offsetBytes + last.lengthBytes === at) {
      last.lengthBytes += blockBytes
    } else extents.push({ offsetBytes: at, lengthBytes: blockBytes })
  }
  return extents
}

/** Bytes that nothing makes smaller. */
export function incompressible(lengthBytes: number): Buffer {
  return randomBytes(lengthBytes)
}
