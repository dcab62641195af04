import { privateKeyFromRaw } from '@libp2p/crypto/keys'
import { identify } from '@libp2p/identify'
import type { Connection, Libp2p, Stream } from '@libp2p/interface'
import { noise } from '@libp2p/noise'
import { tcp } from '@libp2p/tcp'
import { yamux } from '@libp2p/yamux'
import { multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'
import { onTestFinished } from 'vitest'
import { encodeHello, type Hello } from '../../cluster/peers/hello.ts'
import type { Identity } from '../../cluster/peers/identity.ts'
import type { TestPeer } from './peers.ts'

/** A libp2p node that keeps no rule of ours: what a hostile host can send, this can. */
export async function startHostilePeer(identity: Identity): Promise<Libp2p> {
  const node = await createLibp2p({
    privateKey: privateKeyFromRaw(Buffer.concat([identity.secret(), identity.publicKey()])),
    addresses: { listen: ['/ip4/127.0.0.1/tcp/0'] },
    transports: [tcp()],
    connectionEncrypters: [noise()],
    streamMuxers: [yamux()],
    connectionMonitor: { enabled: false },
    services: { identify: identify() },
  })
  onTestFinished(() => node.stop())
  // It takes gossip, as a member does.
  await node.handle('/meshsub/1.2.0', stream => void drain(stream))
  return node
}

/** Connects with a host of ours anew, whatever connections there are. */
export function dialHostile(node: Libp2p, { peers }: TestPeer): Promise<Connection> {
  const address = multiaddr(`/ip4/127.0.0.1/tcp/${peers.port}/p2p/${peers.peerId}`)
  // Of two connections to one address the library keeps the older, even when that one is ending.
  for (const connection of node.getConnections()) connection.abort(new Error('another one'))
  return node.dial(address, { force: true })
}

/** Says hello as a member does; resolves with the stream when it was answered. */
export async function greet(connection: Connection, hello: Hello): Promise<Stream> {
  const stream = await connection.newStream('/macfleet/hello/1')
  const answered = new Promise<void>((resolve, reject) => {
    stream.addEventListener('message', () => resolve())
    stream.addEventListener('close', () => reject(new Error('refused')))
  })
  const bytes = encodeHello(hello)
  stream.send(Buffer.concat([Uint8Array.of(bytes.length >> 8, bytes.length & 0xff), bytes]))
  await answered
  return stream
}

/** All that comes until the stream ends, however it ends. */
export async function drain(stream: Stream): Promise<Buffer> {
  const parts: Uint8Array[] = []
  try {
    for await (const chunk of stream) parts.push(chunk.subarray())
  } catch {
    // That it was cut off is an end too.
  }
  return Buffer.concat(parts)
}

/** A gossip message as it goes over the wire, alone in its packet, with its length before it. */
export function gossipPacket(
  topic: string,
  from: Uint8Array,
  data: Uint8Array,
  sequence: bigint,
  sign: (bytes: Uint8Array) => Uint8Array,
): Uint8Array {
  const number = Buffer.alloc(8)
  number.writeBigUInt64BE(sequence)
  const unsigned = [field(1, from), field(2, data), field(3, number), field(4, Buffer.from(topic))]
  const signature = sign(Buffer.concat([Buffer.from('libp2p-pubsub:'), ...unsigned]))
  const rpc = field(2, Buffer.concat([...unsigned, field(5, signature)]))
  return Buffer.concat([lengthOf(rpc), rpc])
}

function field(number: number, bytes: Uint8Array): Uint8Array {
  return Buffer.concat([Uint8Array.of((number << 3) | 2), lengthOf(bytes), bytes])
}

function lengthOf(bytes: Uint8Array): Uint8Array {
  const digits: number[] = []
  let rest = bytes.length
  for (; rest > 0x7f; rest >>>= 7) digits.push((rest & 0x7f) | 0x80)
  return Uint8Array.from([...digits, rest])
}
