import type { Socket } from 'node:net'
import type { Clock } from '../../base/clock.ts'
import { failure } from '../../base/errors.ts'
import type { Limits } from '../../base/limits.ts'
import { type Agreement, allocationContextId } from './handshake.ts'
import type { Input } from './input.ts'
import {
  allocation,
  chunkHead,
  chunkKinds,
  commands,
  errorNumbers,
  onlyOneExtent,
  parseRequest,
  type Request,
  requestBytes,
  simpleReply,
  uint16,
  uint32,
} from './protocol.ts'
import type { DataExtent, ReadableDisk } from './readable-disk.ts'

/** A client that was led through the handshake. */
export interface TransmissionInit {
  socket: Socket
  input: Input
  agreement: Agreement
  disk: ReadableDisk
  /** What all clients of the disk may have under way. */
  room: Room
  /** Told of every read that failed, and of every one that did not. */
  onRead(error: unknown): void
  /** Ends it. */
  signal: AbortSignal
}

/** What answering needs. */
export interface TransmissionComponents {
  clock: Clock
  limits: Pick<Limits, 'nbdRequestBytes' | 'nbdExtents' | 'nbdReadMs'>
}

/** Answers a client's requests, many at once and in any order, until it leaves. */
export async function answerRequests(
  init: TransmissionInit,
  components: TransmissionComponents,
): Promise<void> {
  const { input, room } = init
  const { limits } = components
  for (;;) {
    const bytes = await input.take(requestBytes)
    const request = bytes && parseRequest(bytes)
    if (request === undefined || request.command === commands.disconnect) return
    if (request.command === commands.write) {
      // What is to be written comes at once, whatever we say to it.
      if (request.lengthBytes > limits.nbdRequestBytes) return
      if (!(await input.passOver(request.lengthBytes))) return
    }
    const heldBytes = request.command === commands.read ? readableBytes(request, limits) : 0
    await room.enter(heldBytes, init.signal)
    void answer(request, init, components).finally(() => room.leave(heldBytes))
  }
}

function readableBytes({ lengthBytes }: Request, limits: TransmissionComponents['limits']): number {
  return Math.min(lengthBytes, limits.nbdRequestBytes)
}

/** Never rejects. Resolves when the answer has left us, so that what waits to be read is bounded. */
async function answer(
  request: Request,
  init: TransmissionInit,
  components: TransmissionComponents,
): Promise<void> {
  const { agreement, disk } = init
  const error = checkRequest(request, disk, agreement, components.limits)
  if (error !== undefined) return await send(init, errorReply(request, error, agreement))
  let reply: Buffer[]
  try {
    if (request.command === commands.blockStatus) {
      reply = allocationReply(request, disk, components.limits.nbdExtents)
    } else {
      reply = dataReply(request, await read(request, init, components), agreement)
      init.onRead(undefined)
    }
  } catch (thrown) {
    if (init.signal.aborted) return
    init.onRead(thrown)
    reply = errorReply(request, errorNumbers.io, agreement)
  }
  await send(init, reply)
}

/** The error of a request that is not to be carried out. */
function checkRequest(
  { command, offsetBytes, lengthBytes }: Request,
  { sizeBytes }: ReadableDisk,
  { allocationContext }: Agreement,
  limits: TransmissionComponents['limits'],
): number | undefined {
  const reads = command === commands.read
  const asks = command === commands.blockStatus && allocationContext
  if (command === commands.write) return errorNumbers.permission
  if (!reads && !asks) return errorNumbers.invalid
  if (lengthBytes === 0) return errorNumbers.invalid
  if (offsetBytes + BigInt(lengthBytes) > BigInt(sizeBytes)) return errorNumbers.invalid
  if (reads && lengthBytes > limits.nbdRequestBytes) return errorNumbers.overflow
  return undefined
}

/** @throws what the disk throws, or timeout: whoever asked must not wait for ever */
async function read(
  { offsetBytes, lengthBytes }: Request,
  { disk, signal }: TransmissionInit,
  { clock, limits }: TransmissionComponents,
): Promise<Buffer> {
  const { nbdReadMs: timeoutMs } = limits
  const ending = new AbortController()
  const late = failure('timeout', { what: 'bringing a part of an image', timeoutMs })
  const timer = clock.setTimer(timeoutMs, () => ending.abort(late))
  const onAbort = (): void => ending.abort(signal.reason)
  signal.addEventListener('abort', onAbort, { once: true })
  try {
    signal.throwIfAborted()
    const bytes = await disk.read(Number(offsetBytes), lengthBytes, ending.signal)
    if (bytes.length === lengthBytes) return bytes
    throw failure('internal', { detail: 'a disk gave another number of bytes than were asked for' })
  } finally {
    timer.cancel()
    signal.removeEventListener('abort', onAbort)
  }
}

function errorReply(request: Request, error: number, { structuredReplies }: Agreement): Buffer[] {
  if (!structuredReplies) return [simpleReply(request.handle, error)]
  // The number, and a text of no length.
  return [chunkHead(request.handle, chunkKinds.error, 6), uint32(error), uint16(0)]
}

function dataReply(request: Request, bytes: Buffer, { structuredReplies }: Agreement): Buffer[] {
  if (!structuredReplies) return [simpleReply(request.handle, 0), bytes]
  const offset = Buffer.alloc(8)
  offset.writeBigUInt64BE(request.offsetBytes)
  return [chunkHead(request.handle, chunkKinds.data, 8 + bytes.length), offset, bytes]
}

/** Looked at for one answer about what is data; who wants to know more asks again. */
const allocationBytes = 256 * 1024 * 1024

/** What of a range is data and what is zeros, as far as there is room in an answer. */
function allocationReply(request: Request, disk: ReadableDisk, most: number): Buffer[] {
  const offsetBytes = Number(request.offsetBytes)
  const lengthBytes = Math.min(request.lengthBytes, allocationBytes)
  const extents = disk.dataExtents?.(offsetBytes, lengthBytes) ?? [{ offsetBytes, lengthBytes }]
  const runs = runsOf(extents, offsetBytes, lengthBytes)
  const told = runs.slice(0, request.flags & onlyOneExtent ? 1 : most)
  const words = told.flatMap(run => [run.lengthBytes, run.state])
  const data = Buffer.concat([allocationContextId, ...words].map(uint32))
  return [chunkHead(request.handle, chunkKinds.blockStatus, data.length), data]
}

/** Data and the holes between, from the beginning of a range to its end. */
function runsOf(
  extents: readonly DataExtent[],
  offsetBytes: number,
  lengthBytes: number,
): { lengthBytes: number; state: number }[] {
  const end = offsetBytes + lengthBytes
  const runs: { lengthBytes: number; state: number }[] = []
  const add = (length: number, state: number): void => {
    const last = runs.at(-1)
    if (length <= 0) return
    if (last?.state === state) last.lengthBytes += length
    else runs.push({ lengthBytes: length, state })
  }
  let at = offsetBytes
  for (const extent of extents) {
    const from = Math.min(Math.max(extent.offsetBytes, at), end)
    const to = Math.min(Math.max(extent.offsetBytes + extent.lengthBytes, from), end)
    add(from - at, allocation.zeroHole)
    add(to - from, allocation.data)
    at = to
  }
  add(end - at, allocation.zeroHole)
  return runs
}

/** Resolves when the client's side has taken it, or the connection is over. */
async function send({ socket }: TransmissionInit, parts: Buffer[]): Promise<void> {
  if (socket.destroyed) return
  const { promise, resolve } = Promise.withResolvers<void>()
  socket.cork()
  for (const part of parts.slice(0, -1)) socket.write(part)
  // Called with an error too, when the connection breaks.
  socket.write(parts.at(-1) ?? Buffer.alloc(0), () => resolve())
  socket.uncork()
  await promise
}

/** Bounds what is under way at once. */
export interface Room {
  /** Waits for a place. @throws the signal's reason */
  enter(bytes: number, signal: AbortSignal): Promise<void>
  leave(bytes: number): void
}

/** Room for so many requests with so many bytes together; first come, first served. */
export function createRoom(requests: number, bytes: number): Room {
  let requestsInside = 0
  let bytesInside = 0
  const waiting: { bytes: number; enter: () => void }[] = []
  const admit = (): void => {
    for (let next = waiting[0]; next !== undefined; next = waiting[0]) {
      if (requestsInside >= requests) return
      if (requestsInside > 0 && bytesInside + next.bytes > bytes) return
      waiting.shift()
      requestsInside += 1
      bytesInside += next.bytes
      next.enter()
    }
  }
  return {
    async enter(wanted, signal) {
      signal.throwIfAborted()
      const { promise, resolve, reject } = Promise.withResolvers<void>()
      const place = { bytes: wanted, enter: resolve }
      const giveUp = (): void => {
        const at = waiting.indexOf(place)
        if (at < 0) return
        waiting.splice(at, 1)
        reject(signal.reason)
        admit()
      }
      signal.addEventListener('abort', giveUp, { once: true })
      waiting.push(place)
      admit()
      try {
        await promise
      } finally {
        signal.removeEventListener('abort', giveUp)
      }
    },
    leave(left) {
      requestsInside -= 1
      bytesInside -= left
      admit()
    },
  }
}
