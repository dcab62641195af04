import { appendFileSync, copyFileSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { systemClock } from '../base/clock.ts'
import { temporaryFolder } from '../test/support/temporary-folder.ts'
import { followLog, olderLog, readLogTail } from './console-log.ts'

const newLog = () => join(temporaryFolder(), 'console.log')

async function tailOf(path: string, limitBytes: number, lines?: number): Promise<string> {
  return (await readLogTail(path, { limitBytes, ...(lines !== undefined && { lines }) })).toString()
}

describe('readLogTail', () => {
  it('reads nothing where there is nothing', async () => {
    expect(await tailOf(newLog(), 100)).toBe('')
  })

  it('reaches into the older file only as far as it must', async () => {
    const path = newLog()
    writeFileSync(olderLog(path), 'older ')
    writeFileSync(path, 'current')
    expect(await tailOf(path, 4)).toBe('rent')
    expect(await tailOf(path, 9)).toBe('r current')
    expect(await tailOf(path, 900)).toBe('older current')
  })

  it('follows no link', async () => {
    const link = newLog()
    const secret = `${link}.secret`
    writeFileSync(secret, 'x'.repeat(50))
    symlinkSync(secret, link)
    await expect(tailOf(link, 10)).rejects.toMatchObject({ code: 'guestFileRefused' })
  })

  it('cuts to lines as a reader counts them', async () => {
    const path = newLog()
    const texts = fc.string({ unit: fc.constantFrom('a', 'b', '\n'), maxLength: 12 })
    await fc.assert(
      fc.asyncProperty(texts, fc.integer({ min: 0, max: 5 }), async (text, lines) => {
        writeFileSync(path, text)
        const all = text.match(/[^\n]*\n|[^\n]+$/g) ?? []
        expect(await tailOf(path, 1000, lines)).toBe(
          all.slice(Math.max(0, all.length - lines)).join(''),
        )
      }),
      { numRuns: 60 },
    )
  })
})

/** What the guardian does to a log that has grown too large. */
function rotate(path: string): void {
  copyFileSync(path, olderLog(path))
  truncateSync(path, 0)
}

/** Collects what a follower gives until it has as much as is wanted. */
function follow(path: string, limitBytes = 1000) {
  const abort = new AbortController()
  const init = { path, tail: { limitBytes }, signal: abort.signal }
  let text = ''
  let wanted: { length: number; resolve: (text: string) => void } | undefined
  const done = (async () => {
    for await (const piece of followLog(init, systemClock)) {
      text += piece.toString()
      if (wanted !== undefined && text.length >= wanted.length) wanted.resolve(text)
    }
  })()
  return {
    until: (length: number) =>
      new Promise<string>(resolve => {
        if (text.length >= length) resolve(text)
        else wanted = { length, resolve }
      }),
    stop: async () => {
      abort.abort()
      await done
    },
  }
}

describe('followLog', () => {
  it('waits for the file, then gives what is added', async () => {
    const path = newLog()
    const reader = follow(path)
    writeFileSync(path, 'one ')
    await reader.until(4)
    appendFileSync(path, 'two')
    expect(await reader.until(7)).toBe('one two')
    await reader.stop()
  })

  it('gives every byte once over a rotation, whether it had read all before or not', async () => {
    const path = newLog()
    const abort = new AbortController()
    const init = { path, tail: { limitBytes: 100 }, signal: abort.signal }
    writeFileSync(path, 'tail ')
    // A follower reads only when it is asked for more, so this one is late when the log is rotated.
    const pieces = followLog(init, systemClock)
    const next = async () => String((await pieces.next()).value)
    expect(await next()).toBe('tail ')
    appendFileSync(path, 'last words ')
    rotate(path)
    appendFileSync(path, 'new file')
    expect(await next()).toBe('last words ')
    expect(await next()).toBe('new file')
    appendFileSync(path, ' grows')
    expect(await next()).toBe(' grows')
    // Now it has read all there was.
    rotate(path)
    appendFileSync(path, 'newest')
    expect(await next()).toBe('newest')
    abort.abort()
    expect((await pieces.next()).done).toBe(true)
  })
})
