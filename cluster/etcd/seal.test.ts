import { expect, test } from 'vitest'
import { createSeededRandom } from '../../base/random.ts'
import { open, SealError, seal } from './seal.ts'

const cost = 10
const random = createSeededRandom(1)

async function* of(...parts: Buffer[]): AsyncGenerator<Buffer> {
  yield* parts
}

async function all(stream: AsyncIterable<Buffer>): Promise<Buffer> {
  const parts: Buffer[] = []
  for await (const part of stream) parts.push(part)
  return Buffer.concat(parts)
}

const sealed = (text: Buffer): Promise<Buffer> => all(seal(of(text), 'secret', { random, cost }))
const refusal = async (bytes: Buffer, passphrase = 'secret'): Promise<string> => {
  try {
    await all(open(of(bytes), passphrase))
    return 'opened'
  } catch (error) {
    return error instanceof SealError ? error.refusal : String(error)
  }
}

test.each([0, 1, 1024 * 1024, 1024 * 1024 + 1, 2.5 * 1024 * 1024])('%i bytes', async size => {
  const text = createSeededRandom(size).bytes(size)
  const bytes = await sealed(text)
  expect((await all(open(of(bytes), 'secret'))).equals(text)).toBe(true)
  const pieces = [bytes.subarray(0, 7), bytes.subarray(7, 300), bytes.subarray(300)]
  expect((await all(open(of(...pieces), 'secret'))).equals(text)).toBe(true)
})

test('two of the same text have nothing in common after the first bytes', async () => {
  const text = Buffer.from('the same text')
  const [one, other] = [await sealed(text), await sealed(text)]
  expect(one.subarray(18).equals(other.subarray(18))).toBe(false)
  expect(one.includes(text)).toBe(false)
})

test('what is wrong is told', async () => {
  const bytes = await sealed(createSeededRandom(3).bytes(1024 * 1024 + 500))
  expect(await refusal(bytes)).toBe('opened')
  expect(await refusal(bytes, 'other')).toBe('wrongPassphrase')
  expect(await refusal(Buffer.from('{"kind": "something else"}'))).toBe('notSealed')
  expect(await refusal(Buffer.alloc(0))).toBe('notSealed')
  const changed = (at: number, to?: number) => {
    const copy = Buffer.from(bytes)
    copy[at] = to ?? (copy[at] ?? 0) ^ 1
    return copy
  }
  expect(await refusal(changed(16, 9))).toBe('unknownVersion')
  // A file that would have us spend hours or all memory is refused before.
  expect(await refusal(changed(17, 40))).toBe('altered')
  for (const at of [50, 51, 54, 60, 5000, bytes.length - 1]) {
    expect([at, await refusal(changed(at))]).toEqual([at, 'altered'])
  }
  expect(await refusal(Buffer.concat([bytes, Buffer.from('x')]))).toBe('altered')
  const firstFrame = 50 + 4 + 1024 * 1024 + 16
  for (const length of [50, 52, 54, 1000, firstFrame, firstFrame + 3, bytes.length - 1]) {
    expect([length, await refusal(bytes.subarray(0, length))]).toEqual([length, 'altered'])
  }
  const [header, first, rest] = [
    bytes.subarray(0, 50),
    bytes.subarray(50, firstFrame),
    bytes.subarray(firstFrame),
  ]
  for (const swapped of [
    [header, rest],
    [header, first, first, rest],
    [header, rest, first],
  ]) {
    expect(await refusal(Buffer.concat(swapped))).toBe('altered')
  }
})
