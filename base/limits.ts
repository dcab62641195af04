/**
 * Every bound of the system in one place. A queue, cache, retry or loop that has no line here has
 * no business existing. Passed in, so that a test can reach a limit without making a million of
 * anything.
 */
export interface Limits {
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

  // Images
  /** Imports at work at once; each takes a thread and up to a core. */
  imageImports: number
  /** Bytes that an import leaves free on the disk, so that the store, logs and guests can go on. */
  imageReserveBytes: number
  /** Bytes that all images together may take; by default their disk alone is the bound. */
  imageQuotaBytes: number
  /** Bytes of one kernel or initrd that belongs to an image. */
  bootFileBytes: number
  /** Chunks of one layer: with chunks of at most 1 MiB, a bound on what one image holds. */
  layerChunks: number
  /** Commits at work at once; each copies a disk and takes a thread. */
  commits: number
  /** Layers of an image that a commit adds one to; of more, it makes one. */
  commitLayers: number
  /** Time in milliseconds that copying the disk of a guest that runs may take. */
  snapshotMs: number
  /** Time in milliseconds for which a guest's file systems are frozen at most for it. */
  freezeMs: number
  /** Clients of one NBD export at once; a guest has one. */
  nbdConnections: number
  /** Time in milliseconds that a client may take for the handshake. */
  nbdHandshakeMs: number
  /** Options in one handshake. */
  nbdOptions: number
  /** Bytes of one read: what clients may ask for that do not ask how much (NBD protocol). */
  nbdRequestBytes: number
  /** Requests, and bytes of them, that one export has under way at once. */
  nbdRequests: number
  nbdBytes: number
  /** Extents in one answer about what is data. */
  nbdExtents: number
  /**
   * Time in milliseconds that a read may wait for its part of the image; then the guest is paused.
   * Below the 30 s after which drivers of guests give their disk up.
   */
  nbdReadMs: number

  // Registries
  /** Connections to one registry at once. */
  registryConnections: number
  /** Milliseconds in which a registry must answer, or take some of what it is sent. */
  registryAnswerMs: number
  /** Bytes of a body that must come within `registryProgressMs` of waiting for it. */
  registryProgressBytes: number
  registryProgressMs: number
  /** Tries of one request, and the longest wait that a registry may ask for before the next. */
  registryTries: number
  registryRetryAfterMs: number
  /** Bytes of a manifest or an index of a registry. */
  registryManifestBytes: number
  /** Layers of a container image. */
  registryContainerLayers: number
  /** Tags of one repository that are listed. */
  registryTags: number
  /** Tokens of a registry that are kept. */
  registryTokens: number
  /** Bytes of a blob that are sent at once; what is cut is sent again from its last piece on. */
  registryPieceBytes: number
  /** Bytes that are asked for at once, and bytes between two chunks that are read over. */
  registryRangeBytes: number
  registryGapBytes: number
  /** Ranges under way at once for one reader. */
  registryRangesAtOnce: number
  /** Bytes of an image's manifest in a registry. */
  imageManifestBytes: number
  /** Bytes of an image's config. */
  imageConfigBytes: number
  /** Bytes of the index, and of the locations, of one layer. */
  layerIndexBytes: number
  /** Layers of one image. */
  imageLayers: number
  /** Packs that one image lies in. */
  imagePacks: number
  /** Bytes of one pack. */
  packBytes: number
  /** Pushes at once; each takes a thread, and twice `pushPackBytes` of the disk. */
  imagePushes: number
  /** Bytes and chunks of a pack that we make: what is sent again when we are killed in the middle. */
  pushPackBytes: number
  pushPackChunks: number
  /** Packs that we remember to have sent; the oldest are forgotten first. */
  pushedPacks: number
  /** Blobs that a registry is asked for at once, whether it has them. */
  pushQuestionsAtOnce: number

  // Filling images
  /** Images that are filled at once. */
  imageFillings: number
  /** Sources of one image that are asked. */
  fillSources: number
  /** Plain bytes that are asked for and not here yet: of all images, and of one source. */
  fillBytesInFlight: number
  sourceBytesInFlight: number
  /** Requests under way at once with one source of one image. */
  sourceRequestsAtOnce: number
  /** Reads of guests that wait for chunks of one image at once. */
  fillReadsWaiting: number
  /** Times in a row that the thread which fills images is started again after it died. */
  transferRestarts: number
  /** Hosts that served rot which are remembered. */
  rottenSources: number

  // Disks in containers, on HTTPS servers and in folders
  /** Entries of all layers of a container image that are looked at for its disk. */
  wrappedEntries: number
  /** Bytes between two entries of an archive: a long name, attributes, the filling at its end. */
  wrappedHeaderBytes: number
  /** Plain bytes of a packed layer for each of its packed bytes: gzip can make 1032 of one. */
  wrappedRatio: number
  /** Redirects that are followed to a disk. */
  diskRedirects: number
  /** Files and folders of a library that are looked at, and how deep its folders go. */
  libraryEntries: number
  libraryDepth: number
  /** Images of one OCI layout in a library. */
  libraryImages: number
  /** Milliseconds that one call to a library's file system may take. */
  libraryCallMs: number

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

  // The fleet: parts of images for other hosts
  /** Connections to the transfer port at once, and those from one address. */
  transferConnections: number
  transferConnectionsPerSource: number
  /** Requests under way at once on one connection. */
  transferRequestsAtOnce: number
  /** Chunks that are read, hashed and sent at once: to all hosts, and to one. */
  transferChunksAtOnce: number
  transferChunksPerHost: number
  /** Bytes of one request for chunks, and how many it may name. */
  transferRequestBytes: number
  transferRequestChunks: number
  /** Time in milliseconds for which one side may neither send nor take anything. */
  transferStallMs: number
  /** Time in milliseconds after which a connection that nobody uses is closed. */
  transferIdleMs: number
  /** Chunks of layers that are known in memory to be served; of the last used ones. */
  transferChunksKnown: number

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

  imageImports: 4,
  imageReserveBytes: 1 * 1024 * MiB,
  imageQuotaBytes: Number.MAX_SAFE_INTEGER,
  bootFileBytes: 512 * MiB,
  layerChunks: 8 * 1024 * 1024,
  commits: 2,
  commitLayers: 32,
  snapshotMs: 3_600_000,
  freezeMs: 10_000,
  nbdConnections: 16,
  nbdHandshakeMs: 10_000,
  nbdOptions: 64,
  nbdRequestBytes: 32 * MiB,
  nbdRequests: 256,
  nbdBytes: 64 * MiB,
  nbdExtents: 1024,
  nbdReadMs: 20_000,

  registryConnections: 8,
  registryAnswerMs: 60_000,
  registryProgressBytes: 32 * KiB,
  registryProgressMs: 30_000,
  registryTries: 6,
  registryRetryAfterMs: 120_000,
  registryManifestBytes: 4 * MiB,
  registryContainerLayers: 256,
  registryTags: 10_000,
  registryTokens: 64,
  registryPieceBytes: 16 * MiB,
  registryRangeBytes: 8 * MiB,
  registryGapBytes: 128 * KiB,
  registryRangesAtOnce: 4,
  imageManifestBytes: 4 * MiB,
  imageConfigBytes: 256 * KiB,
  layerIndexBytes: 64 * MiB,
  imageLayers: 128,
  imagePacks: 16_384,
  packBytes: 512 * MiB,
  imagePushes: 4,
  pushPackBytes: 64 * MiB,
  pushPackChunks: 512,
  pushedPacks: 4_096,
  pushQuestionsAtOnce: 8,

  imageFillings: 64,
  fillSources: 64,
  fillBytesInFlight: 128 * MiB,
  sourceBytesInFlight: 32 * MiB,
  sourceRequestsAtOnce: 8,
  fillReadsWaiting: 1_024,
  transferRestarts: 5,
  rottenSources: 1_024,

  wrappedEntries: 10_000,
  wrappedHeaderBytes: 256 * KiB,
  wrappedRatio: 2_048,
  diskRedirects: 3,
  libraryEntries: 10_000,
  libraryDepth: 8,
  libraryImages: 1_000,
  libraryCallMs: 15_000,

  transferConnections: 512,
  transferConnectionsPerSource: 16,
  transferRequestsAtOnce: 16,
  transferChunksAtOnce: 64,
  transferChunksPerHost: 16,
  transferRequestBytes: 64 * KiB,
  transferRequestChunks: 4_096,
  transferStallMs: 20_000,
  transferIdleMs: 60_000,
  transferChunksKnown: 1_000_000,

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
