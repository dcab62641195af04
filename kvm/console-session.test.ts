import { describe, expect, it } from 'vitest'
import { ConsoleSession } from './console-session.ts'

/** What a session shows whose guest said `early` while the log, which ends with `tail`, was read. */
function shown(early: string[], tail: string, later: string[] = []): string {
  const session = new ConsoleSession(1000, (_, done) => done())
  for (const text of early) session.hear(Buffer.from(text))
  session.begin(Buffer.from(tail))
  for (const text of later) session.hear(Buffer.from(text))
  return String(session.read() ?? '')
}

describe('ConsoleSession', () => {
  it('shows every byte once, however much of what it heard the log has already', () => {
    expect(shown([], '', ['a'])).toBe('a')
    expect(shown(['login: '], '', ['root'])).toBe('login: root')
    expect(shown(['log', 'in: '], 'booted, login: ', ['root'])).toBe('booted, login: root')
    expect(shown(['log', 'in: '], 'booted, logi', ['root'])).toBe('booted, login: root')
    expect(shown(['login: '], 'booted, ')).toBe('booted, login: ')
    expect(shown(['aaaa'], 'aa', ['b'])).toBe('aaaab')
  })

  it('ends when too much waits, also before it has begun', async () => {
    for (const begun of [true, false]) {
      const session = new ConsoleSession(10, (_, done) => done())
      if (begun) session.begin(Buffer.alloc(0))
      const ended = new Promise(resolve => session.once('error', resolve))
      session.hear(Buffer.alloc(8))
      session.hear(Buffer.alloc(8))
      expect(await ended).toMatchObject({ code: 'consoleTooSlow' })
      session.begin(Buffer.alloc(3))
      session.finish()
    }
  })

  it('hands typing on, a piece at a time', async () => {
    const typed: string[] = []
    let wantMore = () => {}
    const session = new ConsoleSession(10, (bytes, done) => {
      typed.push(bytes.toString())
      wantMore = done
    })
    session.write('one')
    session.write('two')
    expect(typed).toEqual(['one'])
    wantMore()
    await new Promise(resolve => setImmediate(resolve))
    expect(typed).toEqual(['one', 'two'])
  })

  it('shows the last words when it is finished, and none after them', async () => {
    const session = new ConsoleSession(100, (_, done) => done())
    session.begin(Buffer.from('power'))
    session.hear(Buffer.from(' down'))
    session.finish()
    session.hear(Buffer.from('ghost'))
    let text = ''
    for await (const bytes of session) text += bytes
    expect(text).toBe('power down')
  })
})
