import * as fc from 'fast-check'
import { expect, test } from 'vitest'
import { decodeToken, encodeToken, type JoinToken } from './token-text.ts'

const token: JoinToken = {
  id: 'bcdfghjklm',
  secret: 'A'.repeat(22),
  fingerprint: '_-'.repeat(21).concat('x'),
  addresses: [
    { host: '10.1.2.3', peerPort: 7480 },
    { host: 'fd00::1', peerPort: 1 },
  ],
}

test('a token is one line that says the same when it is read', () => {
  const text = encodeToken(token)
  expect(text).toMatch(/^mf1\.[\w.-]+$/)
  expect(text.length).toBeLessThan(160)
  expect(decodeToken(text)).toEqual(token)
  // As it comes from a terminal that broke the line.
  expect(decodeToken(`  ${text.slice(0, 40)}\n${text.slice(40)}\r\n`)).toEqual(token)
  expect(decodeToken(encodeToken({ ...token, addresses: [] })).addresses).toEqual([])
})

test('any slip of the hand is told as one', () => {
  const text = encodeToken(token)
  fc.assert(
    fc.property(fc.nat(text.length - 1), fc.constantFrom(...'aA0.-_!'), (at, letter) => {
      fc.pre(text[at] !== letter)
      const slipped = text.slice(0, at) + letter + text.slice(at + 1)
      expect(() => decodeToken(slipped)).toThrow('this is no join token')
    }),
  )
  expect(() => decodeToken(text.slice(0, -10))).toThrow('a part is missing')
  expect(() => decodeToken(text.replace('mf1', 'mf2'))).toThrow('its form mf2 is not known')
  expect(() => decodeToken('hello')).toThrow('does not begin with mf1')
  expect(() => decodeToken('mf1.'.repeat(10_000))).toThrow('too long')
})

test('nothing that is pasted does worse than being refused', () => {
  fc.assert(
    fc.property(
      fc.oneof(
        fc.string(),
        fc.string().map(rest => `mf1.${rest}`),
      ),
      pasted => {
        try {
          decodeToken(pasted)
        } catch (error) {
          expect(error).toMatchObject({ code: 'tokenMalformed' })
        }
      },
    ),
  )
})
