import type { Socket } from 'node:net'
import type { Limits } from '../../base/limits.ts'
import type { Input } from './input.ts'
import {
  allocation,
  exportFlags,
  handshakeFlags,
  infoKinds,
  longestText,
  magic,
  optionReplies,
  optionReply,
  options,
  uint16,
  uint32,
  uint64,
} from './protocol.ts'

/** What a client and we agreed on. */
export interface Agreement {
  structuredReplies: boolean
  /** It may ask what of the disk is data. */
  allocationContext: boolean
}

/** Whom we speak with, and about what. */
export interface HandshakeInit {
  socket: Socket
  input: Input
  sizeBytes: number
  limits: Pick<Limits, 'nbdRequestBytes' | 'nbdOptions'>
}

/** The one number by which our one context is named later. */
export const allocationContextId = 1

const flags = exportFlags.hasFlags | exportFlags.readOnly | exportFlags.canMultiConnect
/** A name, and as many queries as anybody has. */
const optionBytes = 4 * longestText

/**
 * Leads a client through the handshake. There is one export, the default one, whose name is empty.
 * @returns undefined when the client left, does not want it after all, or does not speak NBD: then
 * the connection is to be closed
 */
export async function shakeHands(init: HandshakeInit): Promise<Agreement | undefined> {
  const { socket, input, limits } = init
  const ours = handshakeFlags.fixedNewstyle | handshakeFlags.noZeroes
  socket.write(Buffer.concat([uint64(magic.server), uint64(magic.option), uint16(ours)]))
  const theirs = (await input.take(4))?.readUInt32BE()
  if (theirs === undefined || (theirs & ~ours) !== 0) return undefined
  const agreement: Agreement = { structuredReplies: false, allocationContext: false }
  for (let count = 0; count < limits.nbdOptions; count++) {
    const head = await input.take(16)
    if (head?.readBigUInt64BE(0) !== magic.option) return undefined
    const option = head.readUInt32BE(8)
    const data = await takeData(init, option, head.readUInt32BE(12))
    if (data === 'left') return undefined
    if (data === 'tooBig') continue
    if (option === options.exportName) {
      if (data.length > 0) return undefined
      const zeroes = Buffer.alloc(theirs & handshakeFlags.noZeroes ? 0 : 124)
      socket.write(Buffer.concat([describeExport(init.sizeBytes), zeroes]))
      return agreement
    }
    if (option === options.abort) {
      socket.end(optionReply(option, optionReplies.acknowledged))
      return undefined
    }
    const replies = answerOption(option, data, agreement, init)
    socket.write(Buffer.concat(replies))
    if (option === options.go && isAcknowledged(replies)) return agreement
  }
  return undefined
}

/** What belongs to an option; more than any option needs is passed over and refused. */
async function takeData(
  { socket, input, limits }: HandshakeInit,
  option: number,
  lengthBytes: number,
): Promise<Buffer | 'left' | 'tooBig'> {
  if (lengthBytes <= optionBytes) return (await input.take(lengthBytes)) ?? 'left'
  if (lengthBytes > limits.nbdRequestBytes || option === options.exportName) return 'left'
  if (!(await input.passOver(lengthBytes))) return 'left'
  socket.write(optionReply(option, optionReplies.tooBig))
  return 'tooBig'
}

function isAcknowledged(replies: readonly Buffer[]): boolean {
  return replies.at(-1)?.readUInt32BE(12) === optionReplies.acknowledged
}

/** Size and flags, as two places of the protocol have them. */
function describeExport(sizeBytes: number): Buffer {
  return Buffer.concat([uint64(BigInt(sizeBytes)), uint16(flags)])
}

/** The replies to an option that leaves the handshake open, the last of them final. */
function answerOption(
  option: number,
  data: Buffer,
  agreement: Agreement,
  init: HandshakeInit,
): Buffer[] {
  const reply = (kind: number, content?: Buffer) => optionReply(option, kind, content)
  switch (option) {
    case options.list:
      if (data.length > 0) return [reply(optionReplies.invalid)]
      return [reply(optionReplies.server, uint32(0)), reply(optionReplies.acknowledged)]
    case options.structuredReply:
      if (data.length > 0) return [reply(optionReplies.invalid)]
      agreement.structuredReplies = true
      return [reply(optionReplies.acknowledged)]
    case options.info:
    case options.go:
      return answerInfo(data, reply, init)
    case options.listMetaContext:
    case options.setMetaContext:
      return answerContexts(option, data, reply, agreement)
    default:
      return [reply(optionReplies.unsupported)]
  }
}

type Reply = (kind: number, content?: Buffer) => Buffer

/** What is asked for besides the sizes, which are always told, is optional: it is not looked at. */
function answerInfo(data: Buffer, reply: Reply, { sizeBytes, limits }: HandshakeInit): Buffer[] {
  const reader = createReader(data)
  const name = reader.text()
  const wanted = reader.number16()
  if (name === undefined || wanted === undefined || reader.left() !== 2 * wanted) {
    return [reply(optionReplies.invalid)]
  }
  if (name !== '') return [reply(optionReplies.unknown)]
  const sizes = [1, 4096, limits.nbdRequestBytes].map(uint32)
  const described = [uint16(infoKinds.export), describeExport(sizeBytes)]
  return [
    reply(optionReplies.info, Buffer.concat(described)),
    reply(optionReplies.info, Buffer.concat([uint16(infoKinds.blockSize), ...sizes])),
    reply(optionReplies.acknowledged),
  ]
}

function answerContexts(
  option: number,
  data: Buffer,
  reply: Reply,
  agreement: Agreement,
): Buffer[] {
  if (!agreement.structuredReplies) return [reply(optionReplies.invalid)]
  const sets = option === options.setMetaContext
  if (sets) agreement.allocationContext = false
  const reader = createReader(data)
  const name = reader.text()
  const count = reader.number32()
  if (name === undefined || count === undefined) return [reply(optionReplies.invalid)]
  if (name !== '') return [reply(optionReplies.unknown)]
  const queries: string[] = []
  while (queries.length < count) {
    const query = reader.text()
    if (query === undefined) return [reply(optionReplies.invalid)]
    queries.push(query)
  }
  if (reader.left() > 0) return [reply(optionReplies.invalid)]
  // To list, no query means all there are, and a name space alone all of it.
  const matches = queries.some(query => query === allocation.name || (!sets && query === 'base:'))
  if (!matches && (sets || count > 0)) return [reply(optionReplies.acknowledged)]
  if (sets) agreement.allocationContext = true
  const found = [uint32(sets ? allocationContextId : 0), Buffer.from(allocation.name)]
  return [reply(optionReplies.metaContext, Buffer.concat(found)), reply(optionReplies.acknowledged)]
}

/** Takes apart what a client sent; everything is undefined from where there is too little. */
function createReader(data: Buffer) {
  let at = 0
  const take = (lengthBytes: number): Buffer | undefined => {
    if (data.length - at < lengthBytes) {
      at = data.length
      return undefined
    }
    at += lengthBytes
    return data.subarray(at - lengthBytes, at)
  }
  const number32 = () => take(4)?.readUInt32BE()
  return {
    number32,
    number16: () => take(2)?.readUInt16BE(),
    text(): string | undefined {
      const lengthBytes = number32()
      if (lengthBytes === undefined || lengthBytes > longestText) return undefined
      return take(lengthBytes)?.toString('utf8')
    },
    left: () => data.length - at,
  }
}
