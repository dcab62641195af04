import { expect, test } from 'vitest'
import type { GuardedProcess } from '../guardian/protocol.ts'
import { ProcessBook } from './process-book.ts'

const running = (name: string, pid: number): GuardedProcess => ({
  name,
  identity: { pid, startTicks: 1 },
  startedAt: '2026-01-01T00:00:00.000Z',
})
const ended = (name: string, pid: number): GuardedProcess => ({
  ...running(name, pid),
  ended: {
    reason: 'exited',
    code: 0,
    signal: null,
    endedAt: '2026-01-01T00:00:01.000Z',
    stderrTail: '',
  },
})

/** A list that is answered when the test says so. */
function later() {
  const { promise, resolve, reject } = Promise.withResolvers<GuardedProcess[]>()
  return { list: () => promise, resolve, reject }
}

test('a list replaces what was known', async () => {
  const book = new ProcessBook()
  book.set(running('gone', 1))
  await book.refresh(async () => [running('a', 2), ended('b', 3)])
  expect(book.all()).toEqual([running('a', 2), ended('b', 3)])
})

test('an end that was told while the list was on its way is not forgotten', async () => {
  const book = new ProcessBook()
  book.set(running('a', 1))
  const answer = later()
  const refreshed = book.refresh(answer.list)
  book.set(ended('a', 1))
  answer.resolve([running('a', 1)])
  await refreshed
  expect(book.get('a')).toEqual(ended('a', 1))
})

test('a start, and a name that was freed, while the list was on its way stay', async () => {
  const book = new ProcessBook()
  book.set(ended('freed', 1))
  const answer = later()
  const refreshed = book.refresh(answer.list)
  book.set(running('started', 2))
  book.delete('freed')
  answer.resolve([ended('freed', 1)])
  await refreshed
  expect(book.all()).toEqual([running('started', 2)])
})

test('a list that fails changes nothing', async () => {
  const book = new ProcessBook()
  book.set(running('a', 1))
  await expect(book.refresh(() => Promise.reject(new Error('lost')))).rejects.toThrow('lost')
  expect(book.get('a')).toEqual(running('a', 1))
})
