import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { createLineSplitter } from './line-splitter.ts'

function split(pieces: Uint8Array[], limitBytes = 1000): { lines: string[]; oversize: number } {
  const seen = { lines: [] as string[], oversize: 0 }
  const splitter = createLineSplitter({
    limitBytes,
    onLine: line => seen.lines.push(line),
    onOversize: () => seen.oversize++,
  })
  for (const piece of pieces) splitter.push(piece)
  return seen
}

describe('createLineSplitter', () => {
  it('gives the same lines however the bytes are cut', () => {
    const text = fc.array(
      fc.string({ unit: 'grapheme' }).map(line => line.replaceAll(/[\r\n]/g, '')),
    )
    fc.assert(
      fc.property(text, fc.array(fc.nat()), fc.boolean(), (lines, cuts, crlf) => {
        const end = crlf ? '\r\n' : '\n'
        const bytes = Buffer.from(lines.map(line => line + end).join(''))
        const places = [0, ...cuts.map(cut => cut % (bytes.length + 1)), bytes.length]
        places.sort((a, b) => a - b)
        const pieces = places.map((from, index) => bytes.subarray(from, places[index + 1] ?? from))
        expect(split(pieces, 100_000)).toEqual({ lines, oversize: 0 })
      }),
    )
  })

  it('takes a line as long as the limit', () => {
    expect(split([Buffer.from('abcd\n')], 4)).toEqual({ lines: ['abcd'], oversize: 0 })
  })

  it('ends at a longer line, says so once, and drops the rest', () => {
    const pieces = ['ok\nabc', 'de', 'f\n', 'later\n'].map(piece => Buffer.from(piece))
    expect(split(pieces, 4)).toEqual({ lines: ['ok'], oversize: 1 })
  })

  it('forgets the line begun when told', () => {
    const lines: string[] = []
    const splitter = createLineSplitter({
      limitBytes: 100,
      onLine: line => lines.push(line),
      onOversize: () => {},
    })
    splitter.push(Buffer.from('half a li'))
    splitter.reset()
    splitter.push(Buffer.from('whole\n'))
    expect(lines).toEqual(['whole'])
  })
})
