import { X509Certificate } from 'node:crypto'
import { onTestFinished } from 'vitest'
import { systemClock } from '../../base/clock.ts'
import { defaultLimits, type Limits } from '../../base/limits.ts'
import { silentLog } from '../../base/log.ts'
import { type PeerServer, startPeerServer } from '../../images/peers/peer-server.ts'
import { createPeerSource } from '../../images/peers/peer-source.ts'
import type { Rot, ServedImage } from '../../images/peers/served-images.ts'
import type { PeerServerInit } from '../../images/peers/server-messages.ts'
import type { FetchedChunk, ImageSource } from '../../images/sources/source.ts'
import {
  makePeerAuthority,
  makePeerHost,
  type PeerAuthority,
  type PeerHost,
} from './peer-images.ts'

/** A host that serves, and those that may fetch from it. */
export interface ServingHost {
  authority: PeerAuthority
  host: PeerHost
  server: PeerServer
  /** Names of the members; change it, and say `membersChanged`. */
  members: Set<string>
  /** How often the main thread was asked whose a certificate is. */
  questions(): number
  rot: Rot[]
  /** A host of this fleet that is a member. */
  join(name: string): PeerHost
  /** The server as a source, as another host has it. */
  sourceFor(asking: PeerHost, changes?: Partial<Limits>): ImageSource
}

/** Starts a server on loopback in its thread; it ends with the test. */
export async function startServingHost(
  images: readonly ServedImage[],
  changes: Partial<Omit<PeerServerInit, 'limits'>> & { limits?: Partial<Limits> } = {},
): Promise<ServingHost> {
  const authority = makePeerAuthority()
  const host = makePeerHost(authority, 'serving')
  const members = new Set<string>()
  const rot: Rot[] = []
  let questions = 0
  const limits = { ...defaultLimits, ...changes.limits }
  const server = await startPeerServer(
    { address: '127.0.0.1', port: 0, tls: host.tls, ...changes, limits },
    {
      log: silentLog,
      async findMember(certificate) {
        questions++
        const { subject } = new X509Certificate(certificate)
        const name = subject.replace(/^CN=/, '')
        return members.has(name) ? name : undefined
      },
      onRot: found => rot.push(found),
      onFailed(error) {
        throw error
      },
    },
  )
  onTestFinished(() => server.close())
  for (const image of images) server.setImage(image)
  return {
    ...{ authority, host, server, members, rot },
    questions: () => questions,
    join(name) {
      members.add(name)
      return makePeerHost(authority, name)
    },
    sourceFor: (asking, bounds = {}) =>
      sourceOf({ ...host, port: server.port }, asking, { ...limits, ...bounds }),
  }
}

/** A peer source that ends with the test. */
export function sourceOf(
  { name, identity, port }: Pick<PeerHost, 'name' | 'identity'> & { port: number },
  asking: Pick<PeerHost, 'tls'>,
  limits: Limits = defaultLimits,
): ImageSource {
  const source = createPeerSource(
    { kind: 'peer', name, identity, address: '127.0.0.1', port },
    { clock: systemClock, limits, tls: () => asking.tls },
  )
  onTestFinished(() => source.close())
  return source
}

/** All that comes. */
export async function collect(
  chunks: AsyncIterable<FetchedChunk>,
): Promise<{ numbers: number[]; bytes: Buffer[] }> {
  const all: FetchedChunk[] = []
  for await (const chunk of chunks) all.push(chunk)
  return { numbers: all.map(({ number }) => number), bytes: all.map(({ bytes }) => bytes) }
}

/** A blob, whole. */
export async function readAll(pieces: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const all: Uint8Array[] = []
  for await (const piece of pieces) all.push(piece)
  return Buffer.concat(all)
}
