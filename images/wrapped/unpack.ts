import {
  createGunzip,
  createZstdDecompress,
  type Gunzip,
  type ZstdDecompress,
  constants as zlib,
} from 'node:zlib'

/**
 * Unpacks what is packed by gzip or zstd, as its first bytes say; anything else comes as it is. A
 * zstd stream may be of many frames and of skippable ones, as tools for lazy pulling write it.
 * Not bounded: whoever reads it counts.
 * @throws the error of the unpacker (`code` Z_..., ZSTD_...) for what is damaged or cut short
 */
export async function* unpack(packed: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  const input = createInput(packed)
  try {
    const head = await input.peek(4)
    if (head.length >= 2 && head.readUInt16BE() === gzipMagic) {
      yield* unpackOne(input, createGunzip({ chunkSize }))
    } else if (isZstd(head)) {
      yield* unpackFrames(input)
    }
    // What is not packed, and what lies behind something packed: then it is not what it should be.
    for (let part = await input.next(); part !== undefined; part = await input.next()) yield part
  } finally {
    input.close()
  }
}

const gzipMagic = 0x1f8b
const frameMagic = 0xfd2fb528
/** The lowest four bits are free. */
const skippableMagic = 0x184d2a50
/** A frame may ask for a window of 128 MiB, what `zstd` itself takes without being told to. */
const windowLogMax = 27
/** Bytes that come out at once at most: fewer trips to the thread that unpacks. */
const chunkSize = 256 * 1024

function isZstd(head: Buffer): boolean {
  if (head.length < 4) return false
  return head.readUInt32LE() === frameMagic || isSkippable(head)
}

function isSkippable(head: Buffer): boolean {
  return ((head.readUInt32LE() ^ skippableMagic) & ~0xf) === 0
}

async function* unpackFrames(input: Input): AsyncGenerator<Uint8Array> {
  for (let head = await input.peek(8); isZstd(head); head = await input.peek(8)) {
    if (isSkippable(head)) {
      if (head.length < 8) return
      if (!(await input.passOver(8 + head.readUInt32LE(4)))) return
      continue
    }
    const params = { [zlib.ZSTD_d_windowLogMax]: windowLogMax }
    yield* unpackOne(input, createZstdDecompress({ chunkSize, params }))
  }
}

/** Unpacks up to the end of what the engine knows as one, and gives back what lies behind it. */
async function* unpackOne(
  input: Input,
  engine: Gunzip | ZstdDecompress,
): AsyncGenerator<Uint8Array> {
  const ended = () => engine.readableEnded || engine.destroyed
  const fed: Uint8Array[] = []
  let fedBytes = 0
  const feed = async () => {
    while (!ended()) {
      const part = await input.next()
      if (part === undefined) return void engine.end()
      fed.push(part)
      fedBytes += part.length
      // What was taken is not given back: the last few parts are all that is kept.
      for (let first = fed[0]; first !== undefined; first = fed[0]) {
        if (fedBytes - sumOf(fed) + first.length > engine.bytesWritten) break
        fed.shift()
      }
      if (!engine.write(part) && !ended()) await roomIn(engine)
    }
  }
  const feeding = feed().catch((error: Error) => void engine.destroy(error))
  try {
    for await (const part of engine) yield part
    await feeding
    const restBytes = fedBytes - engine.bytesWritten
    input.giveBack(Buffer.concat(fed).subarray(sumOf(fed) - restBytes))
  } finally {
    engine.destroy()
  }
}

/** Resolves when the engine takes more, or nothing any more. */
function roomIn(engine: Gunzip | ZstdDecompress): Promise<void> {
  const events = ['drain', 'end', 'close', 'error']
  return new Promise(resolve => {
    const done = () => {
      for (const event of events) engine.off(event, done)
      resolve()
    }
    for (const event of events) engine.on(event, done)
  })
}

function sumOf(parts: readonly Uint8Array[]): number {
  return parts.reduce((sum, part) => sum + part.length, 0)
}

/** A stream that can be looked at before it is read. */
interface Input {
  next(): Promise<Uint8Array | undefined>
  /** The next bytes, which stay; fewer at the end. */
  peek(lengthBytes: number): Promise<Buffer>
  /** @returns whether there were as many */
  passOver(lengthBytes: number): Promise<boolean>
  giveBack(bytes: Uint8Array): void
  close(): void
}

function createInput(stream: AsyncIterable<Uint8Array>): Input {
  const iterator = stream[Symbol.asyncIterator]()
  let kept: Uint8Array[] = []
  const pull = async () => {
    const { done, value } = await iterator.next()
    return done ? undefined : value
  }
  const next = async () => kept.shift() ?? (await pull())
  return {
    next,
    async peek(lengthBytes) {
      while (sumOf(kept) < lengthBytes) {
        const part = await pull()
        if (part === undefined) break
        kept.push(part)
      }
      const whole = Buffer.concat(kept)
      kept = whole.length > 0 ? [whole] : []
      return whole.subarray(0, lengthBytes)
    },
    async passOver(lengthBytes) {
      let rest = lengthBytes
      while (rest > 0) {
        const part = await next()
        if (part === undefined) return false
        if (part.length > rest) kept.unshift(part.subarray(rest))
        rest -= Math.min(rest, part.length)
      }
      return true
    },
    giveBack(bytes) {
      if (bytes.length > 0) kept.unshift(bytes)
    },
    close() {
      // Not waited for: a source that says nothing does not answer this either.
      iterator.return?.().catch(() => {})
    },
  }
}
