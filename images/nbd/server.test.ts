import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { readdirSync, statSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { dirname, join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, onTestFinished, test } from 'vitest'
import { systemClock } from '../../base/clock.ts'
import { defaultLimits } from '../../base/limits.ts'
import { silentLog } from '../../base/log.ts'
import { temporaryFolder } from '../../test/support/temporary-folder.ts'
import { createInput, type Input } from './input.ts'
import { commands, magic, options, uint16, uint32, uint64 } from './protocol.ts'
import type { ReadableDisk } from './readable-disk.ts'
import { type NbdLimits, serveDisk } from './server.ts'

const content = randomBytes(1 << 20)

const wholeDisk: ReadableDisk = {
  sizeBytes: content.length,
  read: async (offset, length) => content.subarray(offset, offset + length),
}

async function serve(disk: ReadableDisk = wholeDisk, limits: Partial<NbdLimits> = {}) {
  const path = join(temporaryFolder(), 'image.sock')
  const components = { clock: systemClock, log: silentLog }
  const server = await serveDisk(
    { path, disk },
    { ...components, limits: { ...defaultLimits, ...limits } },
  )
  onTestFinished(() => server.close())
  return server
}

interface Client {
  socket: Socket
  input: Input
}

async function connectTo(path: string): Promise<Client> {
  const socket = connect(path)
  socket.on('error', () => {})
  onTestFinished(() => void socket.destroy())
  await once(socket, 'connect')
  return { socket, input: createInput(socket) }
}

const option = (number: number, data: Buffer = Buffer.alloc(0)) =>
  Buffer.concat([uint64(magic.option), uint32(number), uint32(data.length), data])

const text = (value: string) => Buffer.concat([uint32(value.length), Buffer.from(value)])

/** Up to the transmission, by the oldest way or the newest. */
async function enter(path: string, structured = false): Promise<Client> {
  const client = await connectTo(path)
  await client.input.take(18)
  client.socket.write(uint32(3))
  if (!structured) {
    client.socket.write(option(options.exportName))
    const told = await client.input.take(10)
    expect(told?.readBigUInt64BE(0)).toBe(BigInt(content.length))
    return client
  }
  const query = Buffer.concat([text(''), uint32(1), text('base:allocation')])
  const wanted: [number, Buffer?][] = [
    [options.structuredReply],
    [options.setMetaContext, query],
    [options.go, Buffer.concat([text(''), uint16(0)])],
  ]
  for (const [number, data] of wanted) {
    client.socket.write(option(number, data))
    expect((await replies(client)).at(-1)).toBe(1)
  }
  return client
}

/** The kinds of an option's replies, the final one last. */
async function replies({ input }: Client): Promise<number[]> {
  const kinds: number[] = []
  for (;;) {
    const head = await input.take(20)
    if (head === undefined) return kinds
    const kind = head.readUInt32BE(12)
    kinds.push(kind)
    await input.take(head.readUInt32BE(16))
    if (kind === 1 || kind >= 2 ** 31) return kinds
  }
}

const request = (command: number, handle: number, offset: number, length: number, flags = 0) =>
  Buffer.concat([
    uint32(magic.request),
    uint16(flags),
    uint16(command),
    uint64(BigInt(handle)),
    uint64(BigInt(offset)),
    uint32(length),
  ])

async function simpleReply({ input }: Client): Promise<{ error: number; handle: number }> {
  const head = await input.take(16)
  expect(head?.readUInt32BE(0)).toBe(magic.simpleReply)
  return { error: head?.readUInt32BE(4) ?? 0, handle: Number(head?.readBigUInt64BE(8)) }
}

/** Reads what there is until the end. */
const isLetGo = async ({ input }: Client): Promise<void> => {
  while ((await input.take(1)) !== undefined);
}

describe('an export', () => {
  test('is its owner’s alone, and gone when it is closed', async () => {
    const { path, close } = await serve()
    expect(statSync(path).mode & 0o777).toBe(0o600)
    await close()
    expect(readdirSync(dirname(path))).toEqual([])
  })

  test('takes the place of one that a killed process left, at a path of any length', async () => {
    const path = join(temporaryFolder(), 'x'.repeat(120))
    const components = { clock: systemClock, log: silentLog, limits: defaultLimits }
    await serveDisk({ path, disk: wholeDisk }, components)
    const again = await serveDisk({ path, disk: wholeDisk }, components)
    expect(readdirSync(dirname(path))).toEqual(['x'.repeat(120)])
    await again.close()
  })

  test('is read by clients old and new, any range and many at once', async () => {
    const { path } = await serve()
    const old = await enter(path)
    const ranges = fc.sample(fc.tuple(fc.nat(content.length - 1), fc.integer({ min: 1 })), 50)
    const wanted = ranges.map(([at, length]) => [at, 1 + (length % (content.length - at))] as const)
    for (const [handle, [at, length]] of wanted.entries()) {
      old.socket.write(request(commands.read, handle, at, length))
    }
    for (let count = 0; count < wanted.length; count++) {
      const { error, handle } = await simpleReply(old)
      const [at = 0, length = 0] = wanted[handle] ?? []
      expect(error).toBe(0)
      const bytes = await old.input.take(length)
      expect(bytes?.equals(content.subarray(at, at + length))).toBe(true)
    }
    const young = await enter(path, true)
    young.socket.write(request(commands.read, 7, 5, 100))
    const head = await young.input.take(20)
    expect(head?.readUInt32BE(0)).toBe(magic.structuredReply)
    expect([head?.readUInt16BE(4), head?.readUInt16BE(6), head?.readUInt32BE(16)]).toEqual([
      1, 1, 108,
    ])
    expect((await young.input.take(8))?.readBigUInt64BE()).toBe(5n)
    expect((await young.input.take(100))?.equals(content.subarray(5, 105))).toBe(true)
  })

  test('tells what is data', async () => {
    const extents = [
      { offsetBytes: 4096, lengthBytes: 4096 },
      { offsetBytes: 8192, lengthBytes: 4096 },
      { offsetBytes: 65_536, lengthBytes: 1 << 30 },
    ]
    const { path } = await serve({ ...wholeDisk, dataExtents: () => extents })
    const client = await enter(path, true)
    const runs = async (flags: number, offset: number, length: number) => {
      client.socket.write(request(commands.blockStatus, 1, offset, length, flags))
      const size = (await client.input.take(20))?.readUInt32BE(16) ?? 0
      const bytes = (await client.input.take(size)) ?? Buffer.alloc(0)
      return Array.from({ length: size / 4 }, (_, at) => bytes.readUInt32BE(4 * at))
    }
    expect(await runs(0, 0, 131_072)).toEqual([1, 4096, 3, 8192, 0, 53_248, 3, 65_536, 0])
    expect(await runs(1 << 3, 0, 131_072)).toEqual([1, 4096, 3])
    expect(await runs(0, 6000, 100)).toEqual([1, 100, 0])
  })

  test('answers what is ready first, and lets only so much be under way', async () => {
    const waiting = new Map<number, () => void>()
    let most = 0
    const disk: ReadableDisk = {
      sizeBytes: content.length,
      read: (offset, length) =>
        new Promise(resolve => {
          waiting.set(offset, () => {
            waiting.delete(offset)
            resolve(content.subarray(offset, offset + length))
          })
          most = Math.max(most, waiting.size)
        }),
    }
    const { path } = await serve(disk, { nbdRequests: 3, nbdBytes: 10_000 })
    const client = await enter(path)
    for (let at = 0; at < 6; at++) client.socket.write(request(commands.read, at, at, 5000))
    while (waiting.size < 2) await new Promise(setImmediate)
    const order = [1, 0, 3, 2, 5, 4]
    for (const at of order) {
      while (!waiting.has(at)) await new Promise(setImmediate)
      waiting.get(at)?.()
      expect((await simpleReply(client)).handle).toBe(at)
      await client.input.take(5000)
    }
    expect(most).toBe(2)
  })

  test('fails a read that the disk fails, or does not answer in time, and no other', async () => {
    let aborted = 0
    const disk: ReadableDisk = {
      sizeBytes: content.length,
      async read(offset, length, signal) {
        if (offset === 0) throw new Error('rot')
        if (offset === 1) {
          await once(signal, 'abort')
          aborted += 1
          throw signal.reason
        }
        return content.subarray(offset, offset + length)
      },
    }
    const { path } = await serve(disk, { nbdReadMs: 20 })
    const client = await enter(path)
    for (const at of [0, 1]) {
      client.socket.write(request(commands.read, at, at, 10))
      expect(await simpleReply(client)).toEqual({ error: 5, handle: at })
    }
    expect(aborted).toBe(1)
    client.socket.write(request(commands.read, 2, 2, 10))
    expect(await simpleReply(client)).toEqual({ error: 0, handle: 2 })
    expect((await client.input.take(10))?.equals(content.subarray(2, 12))).toBe(true)
  })

  test('stops to read for a client that has left', async () => {
    const left = Promise.withResolvers<void>()
    const asked = Promise.withResolvers<void>()
    const disk: ReadableDisk = {
      sizeBytes: content.length,
      async read(_, __, signal) {
        asked.resolve()
        await once(signal, 'abort')
        left.resolve()
        throw signal.reason
      },
    }
    const { path } = await serve(disk)
    const client = await enter(path)
    client.socket.write(request(commands.read, 1, 0, 10))
    await asked.promise
    client.socket.destroy()
    await left.promise
  })
})

describe('a hostile client', () => {
  test.each([
    ['writes', request(commands.write, 1, 0, 4), 1],
    ['trims', request(4, 1, 0, 4096), 22],
    ['asks what it did not agree on', request(commands.blockStatus, 1, 0, 4096), 22],
    ['reads nothing', request(commands.read, 1, 0, 0), 22],
    ['reads beyond the end', request(commands.read, 1, content.length - 1, 2), 22],
    ['reads too much', request(commands.read, 1, 0, 513 * 1024), 75],
  ])('%s: and is told so', async (_, bytes, error) => {
    const { path } = await serve(wholeDisk, { nbdRequestBytes: 512 * 1024 })
    const client = await enter(path)
    client.socket.write(bytes)
    if (error === 1) client.socket.write('evil')
    expect(await simpleReply(client)).toEqual({ error, handle: 1 })
    client.socket.write(request(commands.read, 2, 0, 1))
    expect(await simpleReply(client)).toEqual({ error: 0, handle: 2 })
  })

  test.each([
    ['sends no request', Buffer.alloc(28, 'x')],
    ['writes without end', request(commands.write, 1, 0, 2 ** 32 - 1)],
  ])('%s: and is let go', async (_, bytes) => {
    const { path } = await serve()
    const client = await enter(path)
    client.socket.write(bytes)
    await isLetGo(client)
    await enter(path)
  })

  test.each([
    ['has flags of its own', [uint32(4)]],
    ['sends no option', [uint32(3), Buffer.alloc(16, 'x')]],
    ['has an option without end', [uint32(3), uint64(magic.option), uint32(9), uint32(2 ** 31)]],
    ['wants another export', [uint32(3), option(options.exportName, Buffer.from('other'))]],
    ['asks on and on', [uint32(3), ...Array(65).fill(option(99))]],
    ['says nothing', []],
  ])('%s in the handshake: and is let go', async (_, parts) => {
    const { path } = await serve(wholeDisk, { nbdHandshakeMs: 200 })
    const client = await connectTo(path)
    for (const part of parts) client.socket.write(part)
    await isLetGo(client)
    await enter(path)
  })

  test.each([
    ['an option too long', options.info, Buffer.alloc(20_000), 2 ** 31 + 9],
    ['a name longer than all there is', options.go, uint32(4000), 2 ** 31 + 3],
    ['another export', options.go, Buffer.concat([text('x'), uint16(0)]), 2 ** 31 + 6],
    [
      'four billion queries',
      options.setMetaContext,
      Buffer.concat([text(''), uint32(2 ** 32 - 1)]),
      2 ** 31 + 3,
    ],
    ['encryption', 5, Buffer.alloc(0), 2 ** 31 + 1],
  ])('offers %s: refused, and it may go on', async (_, number, data, kind) => {
    const { path } = await serve()
    const client = await connectTo(path)
    await client.input.take(18)
    client.socket.write(Buffer.concat([uint32(3), option(options.structuredReply)]))
    expect(await replies(client)).toEqual([1])
    client.socket.write(option(number, data))
    expect(await replies(client)).toEqual([kind])
    client.socket.write(option(options.list))
    expect(await replies(client)).toEqual([2, 1])
  })

  test('can not have more connections than there are', async () => {
    const { path } = await serve(wholeDisk, { nbdConnections: 2 })
    const [first] = await Promise.all([enter(path), enter(path)])
    await isLetGo(await connectTo(path))
    first.socket.destroy()
    await expect
      .poll(() =>
        enter(path).then(
          () => true,
          () => false,
        ),
      )
      .toBe(true)
  })

  test('may send anything at all', async () => {
    const { path } = await serve()
    await fc.assert(
      fc.asyncProperty(fc.boolean(), fc.uint8Array({ maxLength: 200 }), async (inside, bytes) => {
        const client = inside ? await enter(path, true) : await connectTo(path)
        client.socket.end(bytes)
        await isLetGo(client)
      }),
      { numRuns: 100 },
    )
    await enter(path)
  })
})
