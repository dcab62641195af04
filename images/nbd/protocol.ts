/**
 * The words of the NBD protocol that we speak (NetworkBlockDevice/nbd, doc/proto.md): fixed
 * newstyle handshake, simple and structured replies, the allocation context. Numbers are big
 * endian.
 */

/** What messages begin with. */
export const magic = {
  /** `NBDMAGIC` */
  server: 0x4e42444d41474943n,
  /** `IHAVEOPT` */
  option: 0x49484156454f5054n,
  optionReply: 0x0003e889045565a9n,
  request: 0x25609513,
  simpleReply: 0x67446698,
  structuredReply: 0x668e33ef,
} as const

/** Flags of the handshake; the client's have the same values. */
export const handshakeFlags = { fixedNewstyle: 1, noZeroes: 2 } as const

/** What an export can do. */
export const exportFlags = { hasFlags: 1 << 0, readOnly: 1 << 1, canMultiConnect: 1 << 8 } as const

/** What a client asks for before it uses an export. */
export const options = {
  exportName: 1,
  abort: 2,
  list: 3,
  info: 6,
  go: 7,
  structuredReply: 8,
  listMetaContext: 9,
  setMetaContext: 10,
} as const

/** What a server answers to an option. */
export const optionReplies = {
  acknowledged: 1,
  server: 2,
  info: 3,
  metaContext: 4,
  unsupported: 2 ** 31 + 1,
  invalid: 2 ** 31 + 3,
  unknown: 2 ** 31 + 6,
  tooBig: 2 ** 31 + 9,
} as const

/** What a server tells of an export. */
export const infoKinds = { export: 0, blockSize: 3 } as const

/** What a client wants done. */
export const commands = { read: 0, write: 1, disconnect: 2, blockStatus: 7 } as const

/** Of a command: only the first extent is wanted. */
export const onlyOneExtent = 1 << 3

/** Pieces of a structured reply. */
export const chunkKinds = { data: 1, blockStatus: 5, error: 2 ** 15 + 1 } as const

/** The last piece of a structured reply. */
const chunkDone = 1

/** Linux's numbers, which the protocol uses. */
export const errorNumbers = { permission: 1, io: 5, invalid: 22, overflow: 75 } as const

/** What the allocation context says of a range: `hole | zero`, or neither. */
export const allocation = { name: 'base:allocation', data: 0, zeroHole: 3 } as const

/** Bytes of the longest text that the protocol allows. */
export const longestText = 4096

/** A command of a client. */
export interface Request {
  flags: number
  command: number
  /** Names the request in its answer; any 8 bytes. */
  handle: Buffer
  offsetBytes: bigint
  lengthBytes: number
}

/** Bytes of a request without what is to be written. */
export const requestBytes = 28

/** Undefined when it is no request. */
export function parseRequest(bytes: Buffer): Request | undefined {
  if (bytes.readUInt32BE(0) !== magic.request) return undefined
  return {
    flags: bytes.readUInt16BE(4),
    command: bytes.readUInt16BE(6),
    handle: Buffer.from(bytes.subarray(8, 16)),
    offsetBytes: bytes.readBigUInt64BE(16),
    lengthBytes: bytes.readUInt32BE(24),
  }
}

/** The answer to a request in one piece, without data. */
export function simpleReply(handle: Buffer, error: number): Buffer {
  return Buffer.concat([uint32(magic.simpleReply), uint32(error), handle])
}

/** The head of a structured reply's only piece, which has so many bytes. */
export function chunkHead(handle: Buffer, kind: number, lengthBytes: number): Buffer {
  const head = Buffer.alloc(20)
  head.writeUInt32BE(magic.structuredReply, 0)
  head.writeUInt16BE(chunkDone, 4)
  head.writeUInt16BE(kind, 6)
  handle.copy(head, 8)
  head.writeUInt32BE(lengthBytes, 16)
  return head
}

/** An answer to an option. */
export function optionReply(option: number, kind: number, data: Buffer = Buffer.alloc(0)): Buffer {
  const words = [uint32(option), uint32(kind), uint32(data.length)]
  return Buffer.concat([uint64(magic.optionReply), ...words, data])
}

/** 16 bits as the wire has them. */
export function uint16(value: number): Buffer {
  const bytes = Buffer.alloc(2)
  bytes.writeUInt16BE(value)
  return bytes
}

/** 32 bits as the wire has them. */
export function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value)
  return bytes
}

/** 64 bits as the wire has them. */
export function uint64(value: bigint): Buffer {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64BE(value)
  return bytes
}
