import { defaultImageLimits, type ImageLimits } from './image-limits.ts'

/**
 * Every bound of the system in one place. A queue, cache, retry or loop that has no line here has
 * no business existing. Passed in, so that a test can reach a limit without making a million of
 * anything.
 */
export interface Limits extends ImageLimits {
  /**
   * Bytes of a request body that holds one object; etcd takes 1.5 MiB a request, so stay below it.
   */
  requestBodyBytes: number
  /** Time in milliseconds that such a body may take to arrive. */
  requestBodyMs: number
  /** Time in milliseconds that an upload may stand still before it is given up. */
  uploadIdleMs: number
  /** Connections to the API at once. */
  apiConnections: number
  /** Bytes of one WebSocket message from a client. */
  webSocketMessageBytes: number
  /**
   * Bytes that wait for a client which reads its WebSocket too slowly, before its source must wait.
   */
  webSocketBacklogBytes: number
  /** Objects in one page of a list; more are asked for with `continue`. */
  listPage: number
  /** Watches open at once on one daemon. */
  watches: number
  /** Events a slow watcher may have waiting before it is cut off and must list anew. */
  watchBacklog: number
  /** Revisions of history that the store keeps for watchers that come back. */
  storeHistory: number
  /** Events (the resource) kept per namespace; the oldest go first. */
  eventsPerNamespace: number
  /** Events that wait to be written; what comes while so many wait is dropped. */
  eventsWaiting: number
  /** Events written lately that are remembered, so that a repetition is counted and not written. */
  eventsRemembered: number
  /** Bytes of a program's output that are kept; what is beyond is dropped. */
  commandOutputBytes: number
  /** Bytes of one line on a QMP, guest agent or guardian socket. */
  messageLineBytes: number
  /** Bytes of a serial log before it is rotated; one older file is kept. */
  serialLogBytes: number
  /** Consoles and terminals open at once per virtual machine. */
  sessionsPerMachine: number
  /** Virtual machines that one host takes, whatever its size. */
  machinesPerHost: number
  /** Virtual size in bytes of the largest disk or image that is accepted. */
  diskBytes: number

  // The store
  /** Bytes of one key. */
  storeKeyBytes: number
  /** Bytes of all keys and values; it all lies in memory too. A write beyond is refused. */
  storeBytes: number
  /** Compares, and operations, of one transaction (etcd's --max-txn-ops default). */
  transactionOperations: number
  /** Bytes of the keys and values of one transaction (etcd's --max-request-bytes default). */
  transactionBytes: number
  /** Writes that wait for the disk at once. */
  storeWritesWaiting: number
  /** Leases held at once. */
  leases: number

  // A full disk
  /** Files that hold room for the store, given up one by one when the disk is full. */
  ballastFiles: number
  /** Bytes of each. */
  ballastFileBytes: number
  /** Free bytes below which one is given up: a few writes of the store. */
  ballastReleaseBytes: number
  /** Bytes that may be taken between two looks at the disk while nobody is taken to be writing. */
  ballastQuietBytes: number

  // Controlling a guest
  /** QMP commands that wait for an answer at once on one connection. */
  qmpCommandsWaiting: number
  /** Requests that wait for one guest's agent, which serves them one at a time. */
  agentRequestsWaiting: number
  /** Bytes of input, and of each output, of one command that the guest agent runs. */
  agentCommandBytes: number
  /** Network interfaces, and addresses of each, that are taken from a guest agent's word. */
  agentInterfaces: number
  /** Bytes of the serial log that a new console session is shown first. */
  consoleReplayBytes: number
  /** Bytes that a console session may be behind before it is ended. */
  consoleBacklogBytes: number

  // The command line
  /** Bytes of one answer of the daemon that the command line reads. */
  clientAnswerBytes: number
  /** Pages of one list that the command line follows. */
  clientListPages: number
  /** Bytes of one manifest file. */
  manifestBytes: number
  /** Times in a row that a broken watch is taken up again. */
  clientWatchRetries: number

  // The guardian
  /** Processes the guardian has: those that run and those that ended and were not yet forgotten. */
  guardedProcesses: number
  /** Clients connected to the guardian at once. */
  guardianClients: number
  /** Log files of one process that the guardian rotates. */
  guardedLogs: number
  /** Bytes kept in the file of what a process said on its standard error. */
  lastWordsBytes: number
  /** Bytes of these that go into the record of its end; a list of all must fit into one message. */
  lastWordsTailBytes: number

  // The fleet: membership
  /** Hosts of one fleet, those that wait for approval included. */
  members: number
  /** Join tokens that are valid at once. */
  joinTokens: number
  /** Hosts that one join token lets in. */
  joinTokenUses: number
  /** Addresses in one join token. */
  joinTokenAddresses: number
  /** Failed attempts to join or renew, a minute, from one source address. */
  joinAttempts: number
  /** Source addresses whose failed attempts are remembered. */
  joinSources: number
  /** Bytes of a request to join or to renew. */
  joinRequestBytes: number
  /** Requests to sign that are looked at at once. */
  joinRequestsAtOnce: number
  /** Connections to the peer port at once. */
  peerPortConnections: number
  /** The same from one address; a host has one for each request that is under way. */
  peerPortConnectionsPerSource: number
  /** Bytes of an answer on the peer port: the list of all members is the largest. */
  memberAnswerBytes: number

  // The fleet: etcd
  /** Calls to etcd that wait for an answer at once. */
  etcdCalls: number

  // The fleet: peers and gossip
  /** libp2p connections at once, in both directions. */
  peerConnections: number
  /** Inbound connections that have not proved who they are, at once; the rest are refused. */
  peerConnectionsPending: number
  /** Inbound connections a second from one address: a rack behind one address starts at once. */
  peerConnectionsPerSecond: number
  /** Requests that one peer may have with us at once, for each protocol. */
  peerRequestsAtOnce: number
  /** Requests a second that are served to one peer, over all protocols; it may save up four times. */
  peerRequestsPerSecond: number
  /** Requests of ours under way at once. */
  peerRequestsWaiting: number
  /** Bytes of one request to a peer, and of its answer: 10,000 facts fit. */
  peerRequestBytes: number
  peerAnswerBytes: number
  /** Bytes a second of gossip on one connection; it may save up four times. More cuts it off. */
  gossipBytesPerSecond: number
  /** Bytes of one gossip message, signed and packed; from 512 on gossipsub works differently. */
  gossipMessageBytes: number
  /** Messages a second of one sender that are read and passed on; it may save up five times. */
  factsPerSecond: number
  /** Fleets' hosts found by mDNS that are remembered. */
  discoveredHosts: number
  /** mDNS packets a second that are looked at. */
  discoveryPacketsPerSecond: number
}

const KiB = 1024
const MiB = 1024 * KiB
const TiB = 1024 * 1024 * MiB

/** The limits of a daemon in service. */
export const defaultLimits: Limits = {
  ...defaultImageLimits,
  requestBodyBytes: 1 * MiB,
  requestBodyMs: 30_000,
  uploadIdleMs: 300_000,
  apiConnections: 4_096,
  webSocketMessageBytes: 1 * MiB,
  webSocketBacklogBytes: 1 * MiB,
  listPage: 500,
  watches: 10_000,
  watchBacklog: 1_000,
  storeHistory: 10_000,
  eventsPerNamespace: 1_000,
  eventsWaiting: 1_000,
  eventsRemembered: 1_000,
  commandOutputBytes: 1 * MiB,
  messageLineBytes: 4 * MiB,
  serialLogBytes: 4 * MiB,
  sessionsPerMachine: 16,
  machinesPerHost: 256,
  diskBytes: 8 * TiB,

  storeKeyBytes: 1 * KiB,
  storeBytes: 256 * MiB,
  transactionOperations: 128,
  transactionBytes: 1.5 * MiB,
  storeWritesWaiting: 10_000,
  leases: 20_000,

  ballastFiles: 4,
  ballastFileBytes: 4 * MiB,
  ballastReleaseBytes: 1 * MiB,
  ballastQuietBytes: 64 * KiB,

  qmpCommandsWaiting: 64,
  agentRequestsWaiting: 32,
  agentCommandBytes: 2 * MiB,
  agentInterfaces: 64,
  consoleReplayBytes: 64 * KiB,
  consoleBacklogBytes: 1 * MiB,

  clientAnswerBytes: 64 * MiB,
  clientListPages: 1_000,
  manifestBytes: 16 * MiB,
  clientWatchRetries: 30,

  guardedProcesses: 512,
  guardianClients: 32,
  guardedLogs: 8,
  lastWordsBytes: 64 * KiB,
  lastWordsTailBytes: 2 * KiB,

  etcdCalls: 4_096,

  members: 10_000,
  joinTokens: 256,
  joinTokenUses: 10_000,
  joinTokenAddresses: 8,
  joinAttempts: 20,
  joinSources: 4_096,
  joinRequestBytes: 16 * KiB,
  joinRequestsAtOnce: 64,
  peerPortConnections: 2_048,
  peerPortConnectionsPerSource: 128,
  memberAnswerBytes: 16 * MiB,

  peerConnections: 512,
  peerConnectionsPending: 256,
  peerConnectionsPerSecond: 32,
  peerRequestsAtOnce: 16,
  peerRequestsPerSecond: 50,
  peerRequestsWaiting: 256,
  peerRequestBytes: 64 * KiB,
  peerAnswerBytes: 4 * MiB,
  gossipBytesPerSecond: 512 * KiB,
  gossipMessageBytes: 512,
  factsPerSecond: 4,
  discoveredHosts: 1_024,
  discoveryPacketsPerSecond: 200,
}
