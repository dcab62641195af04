import {
  appendFileSync,
  existsSync,
  linkSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { systemClock } from '../base/clock.ts'
import { temporaryFolder } from '../test/support/temporary-folder.ts'
import { followLog, olderLog, readLogTail, rotateLog } from './console-log.ts'

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

describe('rotateLog', () => {
  it('leaves a log within its limit alone', async () => {
    const path = newLog()
    expect(await rotateLog(path, 10)).toBe(false)
    writeFileSync(path, '0123456789')
    expect(await rotateLog(path, 10)).toBe(false)
    expect(readFileSync(path, 'utf8')).toBe('0123456789')
  })

  it('moves a larger one aside, and only the end of one that is far too large', async () => {
    const path = newLog()
    writeFileSync(olderLog(path), 'oldest')
    writeFileSync(path, 'x'.repeat(15))
    expect(await rotateLog(path, 10)).toBe(true)
    expect([readFileSync(path, 'utf8'), readFileSync(olderLog(path), 'utf8')]).toEqual([
      '',
      'x'.repeat(15),
    ])
    writeFileSync(path, `${'x'.repeat(5000)}0123456789`)
    expect(await rotateLog(path, 10)).toBe(true)
    expect(readFileSync(olderLog(path), 'utf8')).toBe('0123456789')
  })

  it('follows no link and cuts no file that has another name', async () => {
    const path = newLog()
    const secret = `${path}.secret`
    writeFileSync(secret, 'x'.repeat(50))
    linkSync(secret, path)
    await expect(rotateLog(path, 10)).rejects.toMatchObject({ code: 'guestFileRefused' })
    const link = newLog()
    symlinkSync(secret, link)
    await expect(rotateLog(link, 10)).rejects.toMatchObject({ code: 'guestFileRefused' })
    await expect(tailOf(link, 10)).rejects.toMatchObject({ code: 'guestFileRefused' })
    expect(readFileSync(secret).length).toBe(50)
  })

  it('writes through no link that stands where the older file goes', async () => {
    const path = newLog()
    const target = `${path}.target`
    symlinkSync(target, olderLog(path))
    symlinkSync(target, `${olderLog(path)}.tmp`)
    writeFileSync(path, 'x'.repeat(20))
    await rotateLog(path, 10)
    expect(existsSync(target)).toBe(false)
    expect(readFileSync(olderLog(path)).length).toBe(20)
  })
})

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
    await rotateLog(path, 10)
    appendFileSync(path, 'new file')
    expect(await next()).toBe('last words ')
    expect(await next()).toBe('new file')
    appendFileSync(path, ' grows')
    expect(await next()).toBe(' grows')
    // Now it has read all there was.
    await rotateLog(path, 10)
    appendFileSync(path, 'newest')
    expect(await next()).toBe('newest')
    abort.abort()
    expect((await pieces.next()).done).toBe(true)
  })
})
