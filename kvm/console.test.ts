import { appendFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Duplex } from 'node:stream'
import { describe, expect, it, onTestFinished } from 'vitest'
import { systemClock } from '../base/clock.ts'
import { defaultLimits, type Limits } from '../base/limits.ts'
import { silentLog } from '../base/log.ts'
import { type PeerConnection, startScriptedPeer } from '../test/support/scripted-peer.ts'
import { temporaryFolder } from '../test/support/temporary-folder.ts'
import { attachConsole, type ConsoleInit } from './console.ts'

function consoleOf(init: Partial<ConsoleInit> = {}, limits: Partial<Limits> = {}) {
  const path = temporaryFolder()
  const folder = { console: join(path, 'console.sock'), consoleLog: join(path, 'console.log') }
  const hub = attachConsole(
    { folder, backoff: { firstMs: 1, mostMs: 5 }, ...init },
    { clock: systemClock, log: silentLog, limits: { ...defaultLimits, ...limits } },
  )
  onTestFinished(() => hub.close())
  return { hub, folder }
}

/** A guest: each connection of the hub's to its console, as they come. */
async function guestAt(path: string): Promise<() => Promise<PeerConnection>> {
  const waiting: ((peer: PeerConnection) => void)[] = []
  const peers: PeerConnection[] = []
  await startScriptedPeer(path, peer => {
    const reader = waiting.shift()
    if (reader === undefined) peers.push(peer)
    else reader(peer)
  })
  return () =>
    new Promise(resolve => {
      const peer = peers.shift()
      if (peer === undefined) waiting.push(resolve)
      else resolve(peer)
    })
}

/** Reads until the text is there; the test's own time limit is the deadline. */
async function readUntil(session: Duplex, text: string): Promise<string> {
  let seen = ''
  while (!seen.includes(text)) {
    const bytes: Buffer | null = session.read()
    if (bytes !== null) seen += bytes.toString()
    else await new Promise(resolve => session.once('readable', resolve))
  }
  return seen
}

describe('attachConsole', () => {
  it('gives every session the end of the log, then what the guest says', async () => {
    const { hub, folder } = consoleOf({}, { consoleReplayBytes: 10 })
    writeFileSync(folder.consoleLog, 'long ago, and then: login: ')
    const nextGuest = await guestAt(folder.console)
    const guest = await nextGuest()
    const sessions = [await hub.open(), await hub.open()]
    guest.send('root\r\n')
    for (const session of sessions) {
      expect(await readUntil(session, 'root\r\n')).toBe('n: login: root\r\n')
    }
  })

  it('does not repeat what was said while the log was read', async () => {
    const { hub, folder } = consoleOf()
    const nextGuest = await guestAt(folder.console)
    const guest = await nextGuest()
    writeFileSync(folder.consoleLog, 'before ')
    const first = await hub.open()
    appendFileSync(folder.consoleLog, 'meanwhile ')
    guest.send('meanwhile after')
    expect(await readUntil(first, 'after')).toBe('before meanwhile after')
    const second = hub.open()
    guest.send('the end')
    expect(await readUntil(await second, 'the end')).toBe('before meanwhile the end')
  })

  it('takes the typing of all sessions to the guest', async () => {
    const { hub, folder } = consoleOf()
    const typedIntoNothing = await hub.open()
    typedIntoNothing.write('lost\n')
    const nextGuest = await guestAt(folder.console)
    const guest = await nextGuest()
    const session = await hub.open()
    // The hub may learn of its connection a moment later than the guest does.
    guest.send('$ ')
    await readUntil(session, '$ ')
    session.write('uname\n')
    expect(await guest.nextLine()).toBe('uname')
    typedIntoNothing.write('id\n')
    expect(await guest.nextLine()).toBe('id')
  })

  it('ends a session that does not read, and no other', async () => {
    const { hub, folder } = consoleOf({}, { consoleBacklogBytes: 1000 })
    const nextGuest = await guestAt(folder.console)
    const guest = await nextGuest()
    const [lazy, eager] = [await hub.open(), await hub.open()]
    const ended = new Promise<Error>(resolve => lazy.once('error', resolve))
    for (let line = 0; line < 20; line++) {
      guest.send(`${'x'.repeat(98)}${line}\n`)
      await readUntil(eager, `x${line}\n`)
    }
    expect(await ended).toMatchObject({ code: 'consoleTooSlow' })
    expect(hub.sessions()).toBe(1)
  })

  it('lets only so many in', async () => {
    const { hub } = consoleOf({}, { sessionsPerMachine: 2 })
    const first = await hub.open()
    await hub.open()
    await expect(hub.open()).rejects.toMatchObject({ code: 'tooMany' })
    first.destroy()
    await new Promise(resolve => first.once('close', resolve))
    await hub.open()
  })

  it('comes back to a console that went away, sessions and all', async () => {
    const { hub, folder } = consoleOf()
    const nextGuest = await guestAt(folder.console)
    const session = await hub.open()
    const first = await nextGuest()
    first.send('one ')
    await readUntil(session, 'one ')
    first.drop()
    const second = await nextGuest()
    second.send('two')
    expect(await readUntil(session, 'two')).toBe('two')
  })

  it('tells the first byte once', async () => {
    const times: number[] = []
    const { hub, folder } = consoleOf({ onFirstByte: wallMs => times.push(wallMs) })
    const nextGuest = await guestAt(folder.console)
    const session = await hub.open()
    const guest = await nextGuest()
    guest.send('a')
    await readUntil(session, 'a')
    guest.send('b')
    await readUntil(session, 'b')
    expect(times.length).toBe(1)
    expect(Math.abs((times[0] ?? 0) - systemClock.wallMs())).toBeLessThan(10_000)
  })

  it('counts a first byte that came before there was a connection', async () => {
    const times: number[] = []
    const onFirstByte = (wallMs: number) => times.push(wallMs)
    const { folder } = consoleOf({ onFirstByte, startedAtMs: systemClock.wallMs() - 60_000 })
    writeFileSync(folder.consoleLog, 'R')
    await (await guestAt(folder.console))()
    await expect.poll(() => times.length).toBe(1)
    // What an earlier run of the guest said does not count.
    const later = consoleOf({ onFirstByte, startedAtMs: systemClock.wallMs() + 60_000 })
    writeFileSync(later.folder.consoleLog, 'R')
    const guest = await (await guestAt(later.folder.console))()
    const session = await later.hub.open()
    expect(times.length).toBe(1)
    guest.send('S')
    await readUntil(session, 'S')
    expect(times.length).toBe(2)
  })

  it('ends its sessions when it is closed', async () => {
    const { hub } = consoleOf()
    const session = await hub.open()
    const ended = new Promise(resolve => session.once('close', resolve))
    session.resume()
    await hub.close()
    await ended
    await expect(hub.open()).rejects.toMatchObject({ code: 'consoleUnavailable' })
  })
})
