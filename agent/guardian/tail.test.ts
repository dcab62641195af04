import fc from 'fast-check'
import { expect, test } from 'vitest'
import { createTail, readableText } from './tail.ts'

test('a tail is the end of all that was pushed', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 20 }),
      fc.array(fc.uint8Array({ maxLength: 50 }), { maxLength: 20 }),
      (limitBytes, pieces) => {
        const tail = createTail(limitBytes)
        for (const piece of pieces) tail.push(piece)
        expect(tail.bytes()).toEqual(Buffer.concat(pieces).subarray(-limitBytes))
      },
    ),
  )
})

test('text for a record has nothing that moves a cursor, and stays short as JSON', () => {
  expect(readableText(Buffer.from('a\x1b[2Jb\r\nc\td\u009b\x00'))).toBe('a?[2Jb\nc\td??')
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 100 }), bytes => {
      const text = readableText(bytes)
      // A backslash of the text's own is escaped too: an escape of JSON follows an even number of
      // them.
      expect(JSON.stringify(text)).not.toMatch(/(^|[^\\])(\\\\)*\\u/)
      expect(Buffer.byteLength(JSON.stringify(text))).toBeLessThanOrEqual(3 * bytes.length + 2)
    }),
  )
})
