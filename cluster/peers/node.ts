import { isIPv6 } from 'node:net'
import type { GossipSub, gossipsub as makeGossipsub } from '@libp2p/gossipsub'
import type { Identify } from '@libp2p/identify'
import type { ComponentLogger, Libp2p, Logger, PeerId } from '@libp2p/interface'
import type { Multiaddr } from '@multiformats/multiaddr'
import { failure, messageOf } from '../../base/errors.ts'
import type { Limits } from '../../base/limits.ts'
import type { Gate } from './gate.ts'
import type { Identity } from './identity.ts'

/** Where a host listens for its peers. */
export interface ListenAddress {
  /** An IP address; 0.0.0.0 or :: for all. */
  host: string
  /** 0 for any. */
  port: number
}

/** The services of a node: `identify` is run by us, after the hello, never by the library. */
export type Services = { identify: Identify; pubsub: GossipSub }

/** A libp2p node and what is needed to name others to it. */
export interface Node {
  libp2p: Libp2p<Services>
  /** Listens from here on. @throws gossipAddressUnusable */
  start(): Promise<void>
  /** The address to dial: only that of the member list, and only who proves to be `peerId`. */
  addressOf(peerId: string, address: ListenAddress): Multiaddr
  peerIdOf(text: string): PeerId
}

/** What a node needs. */
export interface NodeInit {
  identity: Identity
  listen: ListenAddress
  /** Whether a peer may be connected, asked in both directions. */
  mayConnect(peerId: string): boolean
  /** What stands before identify and gossipsub. */
  gate: Gate
  limits: Limits
}

/**
 * Makes libp2p: TCP, Noise, Yamux, identify and gossipsub, and nothing else. It is loaded here, so
 * a host without a fleet pays nothing for it. It does not listen yet.
 */
export async function createNode(init: NodeInit): Promise<Node> {
  const [{ createLibp2p }, { tcp }, { noise }, { yamux }, { identify }, { gossipsub }] =
    await Promise.all([
      import('libp2p'),
      import('@libp2p/tcp'),
      import('@libp2p/noise'),
      import('@libp2p/yamux'),
      import('@libp2p/identify'),
      import('@libp2p/gossipsub'),
    ])
  const [{ privateKeyFromRaw }, { peerIdFromString }, { multiaddr }] = await Promise.all([
    import('@libp2p/crypto/keys'),
    import('@libp2p/peer-id'),
    import('@multiformats/multiaddr'),
  ])
  const { identity, listen, gate, limits } = init
  const denied = (peerId: PeerId): boolean => !init.mayConnect(peerId.toString())
  const libp2p = await createLibp2p<Services>({
    start: false,
    privateKey: privateKeyFromRaw(Buffer.concat([identity.secret(), identity.publicKey()])),
    addresses: { listen: [tcpAddress(listen)], announce: [] },
    // Nothing of this machine's in what is said to peers.
    nodeInfo: { name: 'macfleet', version: '1', userAgent: 'macfleet' },
    logger: quietLogger,
    transports: [tcp({ dialOpts: { noDelay: true }, listenOpts: { noDelay: true } })],
    connectionEncrypters: [noise()],
    // Whether a peer lives is seen by our own heartbeats (session.ts).
    streamMuxers: [
      yamux({
        enableKeepAlive: false,
        maxInboundStreams: 128,
        maxOutboundStreams: 256,
        streamOptions: { maxReadBufferLength: 1024 * 1024 },
      }),
    ],
    // A failed ping of the library's would end connections of a busy host.
    connectionMonitor: { enabled: false },
    connectionManager: {
      maxConnections: limits.peerConnections,
      maxIncomingPendingConnections: limits.peerConnectionsPending,
      inboundConnectionThreshold: limits.peerConnectionsPerSecond,
      inboundUpgradeTimeout: 5_000,
      maxPeerAddrsToDial: 1,
      reconnectRetries: 0,
    },
    connectionGater: {
      denyDialPeer: denied,
      denyInboundEncryptedConnection: denied,
      denyOutboundEncryptedConnection: denied,
      denyInboundUpgradedConnection: denied,
      denyOutboundUpgradedConnection: denied,
      // Addresses are those of the member list; what peers say of theirs is not kept.
      filterMultiaddrForPeer: () => false,
    },
    services: {
      identify(given) {
        const { peerId, privateKey, peerStore, addressManager, events, logger, nodeInfo } = given
        const named = { peerId, privateKey, peerStore, addressManager, events, logger, nodeInfo }
        const make = identify({ runOnConnectionOpen: false, maxInboundStreams: 2 })
        return make({ ...named, registrar: gate.greeted(given.registrar) })
      },
      pubsub(given) {
        const { peerId, privateKey, peerStore, connectionManager, logger } = given
        const named = { peerId, privateKey, peerStore, connectionManager, logger }
        return gossip(gossipsub, limits)({ ...named, registrar: gate.metered(given.registrar) })
      },
    },
  })
  return {
    libp2p,
    async start() {
      try {
        await libp2p.start()
      } catch (error) {
        // The library's own sentence is several lines with a stack; the cause has a name in it.
        const detail = /\bE[A-Z]{4,}\b/.exec(messageOf(error))?.[0] ?? messageOf(error)
        const address = `${listen.host}:${listen.port}`
        throw failure('gossipAddressUnusable', { address, detail }, { cause: error })
      }
    },
    addressOf: (peerId, address) => multiaddr(`${tcpAddress(address)}/p2p/${peerId}`),
    peerIdOf: peerIdFromString,
  }
}

type MakeGossipsub = typeof makeGossipsub

/**
 * Gossipsub's settings. Its scoring of peers is off: it is made for strangers, and judges by
 * address (more than ten hosts behind one are silenced) and by promptness (a starved host is too).
 * Ours are members; who floods or forges is dealt with by rates, signatures and the member list.
 */
function gossip(gossipsub: MakeGossipsub, limits: Limits): ReturnType<MakeGossipsub> {
  return gossipsub({
    globalSignaturePolicy: 'StrictSign',
    fallbackToFloodsub: false,
    allowPublishToZeroTopicPeers: true,
    // How a sender gets at the signature of its own message.
    emitSelf: true,
    doPX: false,
    tagMeshPeers: false,
    scoreParams: { IPColocationFactorWeight: 0, behaviourPenaltyWeight: 0 },
    // One message comes from several peers; without this each copy's signature is verified.
    fastMsgIdFn: ({ from, seqno }) =>
      [from, seqno].map(bytes => Buffer.from(bytes ?? []).toString('latin1')).join('/'),
    // One after the other, so that a flood waits in the socket and not in memory.
    awaitRpcHandler: true,
    awaitRpcMessageHandler: true,
    maxInboundStreams: 2,
    maxOutboundStreams: 2,
    maxInboundDataLength: 256 * 1024,
    maxOutboundBufferSize: 4 * limits.gossipBytesPerSecond,
    maxTopicBytesPerPeer: 16 * 1024,
    decodeRpcLimits: {
      maxSubscriptions: 64,
      maxMessages: 1_000,
      maxIhaveMessageIDs: 5_000,
      maxIwantMessageIDs: 5_000,
      maxIdontwantMessageIDs: 512,
      maxControlMessages: 64,
      maxPeerInfos: 0,
    },
  })
}

function tcpAddress({ host, port }: ListenAddress): string {
  return `/${isIPv6(host) ? 'ip6' : 'ip4'}/${host}/tcp/${port}`
}

const quiet: Logger = Object.assign(() => {}, {
  error: () => {},
  trace: () => {},
  enabled: false,
  newScope: (): Logger => quiet,
})
/** The library's own log is not ours: it is about frames and streams. */
const quietLogger: ComponentLogger = { forComponent: () => quiet }
