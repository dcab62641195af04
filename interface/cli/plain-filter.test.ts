import fc from 'fast-check'
import { expect, test } from 'vitest'
import { createPlainFilter } from './plain-filter.ts'

const filter = (...chunks: string[]) => {
  const plain = createPlainFilter()
  return Buffer.concat(chunks.map(chunk => plain.push(Buffer.from(chunk)))).toString()
}

test.each([
  ['text, tab\tand lines\r\n', 'text, tab\tand lines\r\n'],
  ['\u001b[31mred\u001b[0m', '\u001b[31mred\u001b[0m'],
  ['\u001b[2J\u001b[1;1Hcleared', 'cleared'],
  ['\u001bcreset', 'reset'],
  ['\u001b]0;title\u0007shown', 'shown'],
  ['\u001b]0;title\u001b\\shown', 'shown'],
  ['\u001bP$q"p\u001b\\shown', 'shown'],
  ['\u001b]52;c;clipboard\nnext line', '\nnext line'],
  ['\u0007\u0008\u007fbell', 'bell'],
  ['Grüße 日本 ě 🙂', 'Grüße 日本 ě 🙂'],
  ['\u009b2Jcleared', 'cleared'],
  ['\u009d0;title\u009cshown', 'shown'],
  ['\u001b]0;title\u009cshown', 'shown'],
  ['\u009b31mred', '\u001b[31mred'],
  ['\u001b[>4;2mkeys', 'keys'],
  ['\u001b[?4mkeys', 'keys'],
  ['\u001b[38:5:1;4mred', '\u001b[38:5:1;4mred'],
])('%j', (text, expected) => {
  expect(filter(text)).toBe(expected)
})

test('a sequence that is too long for a colour is none', () => {
  expect(filter(`\u001b[${'1;'.repeat(200)}mtext`)).not.toContain('\u001b')
})

test('a sequence may come in pieces', () => {
  expect(filter('a\u001b', '[3', '1mb\u001b[', '2Jc')).toBe('a\u001b[31mbc')
})

test('single bytes that a terminal might take for controls are none, characters may be cut', () => {
  const plain = createPlainFilter()
  const shown = [[0x9b, 0x32, 0x4a, 0xc4], [0x9b]].map(bytes => plain.push(Uint8Array.from(bytes)))
  expect(Buffer.concat(shown).toString()).toBe('\ufffd2Jě')
})

test('whatever comes, only colours are left of what moves the terminal', () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 60 }), { maxLength: 6 }), chunks => {
      const plain = createPlainFilter()
      const shown = Buffer.concat(chunks.map(chunk => plain.push(chunk))).toString()
      // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must not be there
      const left = shown.replace(/\u001b\[[\d;:]*m/g, '')
      // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must not be there
      expect(left).not.toMatch(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f]/)
    }),
  )
})
