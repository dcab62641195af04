import { mkdirSync } from 'node:fs'
import { createServer, type Server, type Socket } from 'node:net'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { expect, onTestFinished, test } from 'vitest'
import { systemClock } from '../../base/clock.ts'
import { defaultLimits } from '../../base/limits.ts'
import { silentLog } from '../../base/log.ts'
import { temporaryFolder } from '../../test/support/temporary-folder.ts'
import { connectGuardian } from '../guardian/client.ts'
import { followGuardian } from './guardian-follow.ts'
import { ProcessBook } from './process-book.ts'

const startedAt = '2026-01-01T00:00:00.000Z'
const process = (name: string) => ({ name, identity: { pid: 1, startTicks: 1 }, startedAt })

/** The far end of the guardian's socket, which the test speaks for. */
class FarEnd {
  readonly path: string
  listed: object[] = []
  lists = 0
  #server: Server | undefined
  readonly #sockets = new Set<Socket>()

  constructor() {
    const folder = join(temporaryFolder(), 'run')
    mkdirSync(folder)
    this.path = join(folder, 'guardian.sock')
  }

  /** @param answersLists whether it does, or hangs up when it is asked */
  async open(answersLists = true): Promise<void> {
    const server = createServer(socket => {
      this.#sockets.add(socket)
      socket.on('error', () => {})
      createInterface({ input: socket }).on('line', line => {
        const { id, method } = JSON.parse(line)
        if (method === 'list') this.lists++
        if (method === 'list' && !answersLists) return socket.destroy()
        const result = method === 'list' ? this.listed : { pid: 1, startTicks: 1, version: '0' }
        return socket.write(`${JSON.stringify({ id, result })}\n`)
      })
    })
    this.#server = server
    await new Promise<void>(resolve => server.listen(this.path, resolve))
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy()
    this.#sockets.clear()
    const server = this.#server
    this.#server = undefined
    if (server) await new Promise(resolve => server.close(resolve))
  }
}

async function follow(farEnd: FarEnd) {
  const guardian = connectGuardian(
    {
      socketPath: farEnd.path,
      timeoutMs: 2000,
      reconnect: { firstMs: 5, mostMs: 20 },
      limits: defaultLimits,
    },
    { clock: systemClock, log: silentLog },
  )
  const processes = new ProcessBook()
  let listed = 0
  const following = await followGuardian(
    { processes, onExit: () => {}, onListed: () => listed++ },
    { guardian, clock: systemClock, log: silentLog },
  )
  onTestFinished(async () => {
    following.stop()
    guardian.close()
    await farEnd.close()
  })
  return { following, processes, listed: () => listed }
}

const soon = { timeout: 5000 }

test('after another guardian has come the book says what that one says', async () => {
  const farEnd = new FarEnd()
  await farEnd.open()
  farEnd.listed = [process('a')]
  const { following, processes } = await follow(farEnd)
  expect(following.isTrue()).toBe(true)
  await farEnd.close()
  await expect.poll(() => following.isTrue(), soon).toBe(false)
  farEnd.listed = [process('b')]
  await farEnd.open()
  await expect.poll(() => following.isTrue(), soon).toBe(true)
  expect(processes.all()).toEqual([process('b')])
})

test('a guardian that hangs up instead of listing is asked until it lists', async () => {
  const farEnd = new FarEnd()
  await farEnd.open()
  const { following } = await follow(farEnd)
  await farEnd.close()
  await farEnd.open(false)
  const before = farEnd.lists
  await expect.poll(() => farEnd.lists, soon).toBeGreaterThan(before + 1)
  expect(following.isTrue()).toBe(false)
  await farEnd.close()
  await farEnd.open()
  await expect.poll(() => following.isTrue(), soon).toBe(true)
})

test('who doubts is heard, but not more often than once a second', async () => {
  const farEnd = new FarEnd()
  await farEnd.open()
  const { following, listed } = await follow(farEnd)
  await expect.poll(() => following.isTrue(), soon).toBe(true)
  const before = listed()
  for (let count = 0; count < 50; count++) following.doubt()
  expect(following.isTrue()).toBe(false)
  await expect.poll(() => following.isTrue(), soon).toBe(true)
  expect(listed()).toBe(before + 1)
})
