import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { systemRandom } from '../../base/random.ts'
import { createIdentity, peerIdBytes } from '../peers/identity.ts'
import { decodeExchange, encodeExchange } from './exchange-message.ts'
import { decodeFacts, encodeFacts, messageOf, type OwnFacts } from './facts-message.ts'
import { bytesField, decodeNumber, encodeNumber, readFields } from './fields.ts'
import { filterBytes, filterOf, mayContain } from './image-filter.ts'

const count = fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER })
const thousandths = (most: number) =>
  fc.integer({ min: 0, max: most * 1000 }).map(value => value / 1000)
const amounts = fc.record({
  cpu: thousandths(100_000),
  memoryBytes: count,
  diskBytes: count,
  machines: count,
})
const digest = fc
  .uint8Array({ minLength: 32, maxLength: 32 })
  .map(bytes => `sha256:${Buffer.from(bytes).toString('hex')}`)
const facts: fc.Arbitrary<OwnFacts> = fc.record({
  version: fc.stringMatching(/^[ -~]{0,32}$/),
  ready: fc.boolean(),
  allocatable: amounts,
  reserved: amounts,
  cpuFraction: thousandths(1),
  load1: thousandths(1_000_000),
  memoryUsedBytes: count,
  diskFreeBytes: count,
  imageDigests: fc.array(digest, { maxLength: 60 }),
})
const sequence = fc.integer({ min: 0, max: 2 ** 52 })

describe('facts', () => {
  test('are read as they were said, and images that are held are never denied', () => {
    fc.assert(
      fc.property(sequence, facts, (number, own) => {
        const read = decodeFacts(encodeFacts(messageOf(number, own)))
        const { imageDigests, ...said } = own
        expect(read).toMatchObject({ ...said, sequence: number })
        for (const held of imageDigests) {
          expect(mayContain(read?.images ?? new Uint8Array(filterBytes), held)).toBe(true)
        }
      }),
    )
  })

  test('fit, signed and packed, into less than 512 bytes whatever they are', () => {
    fc.assert(
      fc.property(sequence, facts, (number, own) => {
        const worst = {
          ...own,
          version: 'v'.repeat(500),
          cpuFraction: Number.MAX_VALUE,
          load1: Number.POSITIVE_INFINITY,
          memoryUsedBytes: Number.NaN,
        }
        // What gossipsub adds is measured in peers.test.ts: 164 bytes and the topic's 34.
        expect(encodeFacts(messageOf(number, worst)).length + 164 + 34).toBeLessThan(512)
      }),
    )
  })

  test('of a later version are read, without the fields that are new', () => {
    fc.assert(
      fc.property(
        sequence,
        facts,
        fc.integer({ min: 11, max: 255 }),
        fc.uint8Array({ maxLength: 50 }),
        (number, own, field, bytes) => {
          const encoded = encodeFacts(messageOf(number, own))
          const later = Buffer.concat([encoded, bytesField(field, bytes)])
          expect(decodeFacts(later)).toEqual(decodeFacts(encoded))
        },
      ),
    )
  })

  test('that are garbage, cut off or altered are nothing, or are within bounds', () => {
    const check = (bytes: Uint8Array): void => {
      const read = decodeFacts(bytes)
      if (read === undefined) return
      expect(read.images).toHaveLength(filterBytes)
      expect(read.version).toMatch(/^[ -~]{0,32}$/)
      expect(read.sequence).toBeLessThanOrEqual(2 ** 52)
      expect(read.cpuFraction).toBeLessThanOrEqual(1)
      const { reserved, allocatable, load1, memoryUsedBytes, diskFreeBytes } = read
      const numbers = [...Object.values(reserved), ...Object.values(allocatable)]
      for (const value of [...numbers, load1, memoryUsedBytes, diskFreeBytes]) {
        expect(value).toBeGreaterThanOrEqual(0)
        expect(value).toBeLessThanOrEqual(Number.MAX_SAFE_INTEGER)
      }
    }
    fc.assert(fc.property(fc.uint8Array({ maxLength: 600 }), check))
    fc.assert(
      fc.property(
        facts,
        fc.array(fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 })), { maxLength: 8 }),
        fc.nat(),
        (own, changes, cut) => {
          const bytes = Buffer.from(encodeFacts(messageOf(1, own)))
          for (const [at, byte] of changes) bytes[at % bytes.length] = byte
          check(bytes)
          check(bytes.subarray(0, cut % bytes.length))
        },
      ),
    )
  })
})

describe('an exchange', () => {
  const peerIds = [1, 2, 3].map(() => createIdentity(systemRandom).peerId)
  const handedOn = fc.record({
    message: fc.record({
      peerId: fc.constantFrom(...peerIds),
      sequence: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
      data: fc.uint8Array({ maxLength: 400 }),
      signature: fc.uint8Array({ minLength: 64, maxLength: 64 }),
    }),
    ageMs: fc.integer({ min: 0, max: 1e9 }),
  })

  test('is read as it was said, up to so many', () => {
    fc.assert(
      fc.property(fc.array(handedOn, { maxLength: 12 }), entries => {
        const read = decodeExchange(encodeExchange(entries), 12)
        expect(read?.map(plain)).toEqual(entries.map(plain))
        if (entries.length > 0) {
          expect(decodeExchange(encodeExchange(entries), entries.length - 1)).toBeUndefined()
        }
      }),
    )
  })

  test('that is garbage is nothing', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 400 }), bytes => {
        decodeExchange(bytes, 10)
        decodeExchange(Buffer.concat([Uint8Array.of(1), bytes]), 10)
      }),
    )
    expect(peerIdBytes(peerIds[0] ?? '')).toHaveLength(38)
  })
})

/** Whatever kind of bytes they are. */
function plain({
  message,
  ageMs,
}: { message: { data: Uint8Array; signature: Uint8Array } } & {
  ageMs: number
}) {
  const { data, signature, ...rest } = message
  const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')
  return { ...rest, data: hex(data), signature: hex(signature), ageMs }
}

describe('fields', () => {
  test('hold whole numbers up to 2^53 - 1, and fields without sense are none', () => {
    fc.assert(
      fc.property(count, value => {
        expect(decodeNumber(encodeNumber(value), 0)?.value).toBe(value)
      }),
    )
    expect(decodeNumber(Buffer.from('ffffffffffffffffff01', 'hex'), 0)).toBeUndefined()
    expect(readFields(Buffer.alloc(200))).toBeUndefined()
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), bytes => {
        const fields = readFields(bytes)
        const total = [...(fields?.values() ?? [])].reduce((sum, field) => sum + field.length, 0)
        expect(total).toBeLessThanOrEqual(bytes.length)
      }),
    )
  })
})

test('a filter of 50 images rarely takes another for one of them', () => {
  const digestOf = (number: number): string => `sha256:${Buffer.alloc(32, number).toString('hex')}`
  const random = (): string => `sha256:${systemRandom.bytes(32).toString('hex')}`
  const filter = filterOf(Array.from({ length: 50 }, random))
  const wrong = Array.from({ length: 10_000 }, random).filter(other => mayContain(filter, other))
  expect(wrong.length).toBeLessThan(200)
  expect(mayContain(new Uint8Array(filterBytes), digestOf(1))).toBe(false)
  expect(mayContain(filterOf(['no digest']), 'no digest')).toBe(true)
})
