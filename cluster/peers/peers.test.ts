import { connect } from 'node:net'
import type { Connection } from '@libp2p/interface'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { isFailure } from '../../base/errors.ts'
import type { Log } from '../../base/log.ts'
import { systemRandom } from '../../base/random.ts'
import { dialHostile, drain, greet, startHostilePeer } from '../../test/support/hostile-peer.ts'
import {
  eventually,
  introduce,
  startTestPeer,
  type TestPeer,
  type TestPeerInit,
} from '../../test/support/peers.ts'
import type { Hello } from './hello.ts'
import { createIdentity } from './identity.ts'

const echo = '/macfleet/echo/1'
const protocols = [
  '/macfleet/hello/1',
  echo,
  '/macfleet/facts/1',
  '/meshsub/1.2.0',
  '/meshsub/1.1.0',
  '/ipfs/id/1.0.0',
]
const hello: Hello = {
  fleetId: 'fleet-of-the-test',
  era: 1,
  version: '0.1.0',
  protocol: 1,
  host: 'x',
}

async function startEcho(init: TestPeerInit): Promise<TestPeer> {
  const peer = await startTestPeer({ gossip: false, ...init })
  await peer.peers.handle(echo, ({ host }, bytes) => Buffer.concat([Buffer.from(host), bytes]))
  return peer
}

const startPair = (): Promise<TestPeer[]> =>
  Promise.all(['a', 'b'].map(host => startEcho({ host })))
const isConnected = (one: TestPeer, other: TestPeer): boolean =>
  one.peers.connected().some(({ host }) => host === other.host)
const say = (one: TestPeer, host: string, text = 'x'): Promise<string> =>
  one.peers.request(host, echo, Buffer.from(text)).then(bytes => Buffer.from(bytes).toString())

/** A log that keeps what was said as warnings. */
function keepWarnings(): { log: Log; warnings: string[] } {
  const warnings: string[] = []
  const log: Log = {
    debug: () => {},
    info: () => {},
    warn: (fields, text) => warnings.push(`${text} ${JSON.stringify(fields)}`),
    error: () => {},
    child: () => log,
  }
  return { log, warnings }
}

describe('peers', () => {
  test('ask each other, in both directions; what fails says why', async () => {
    const [a, b] = await startPair()
    if (a === undefined || b === undefined) throw new Error('no hosts')
    introduce(a, b)
    expect(await say(a, 'b', '1')).toBe('a1')
    expect(await say(b, 'a', '2')).toBe('b2')
    expect(a.peers.connected()).toEqual([
      { host: 'b', peerId: b.peers.peerId, version: '0.1.0', protocol: 1 },
    ])
    const failed = await say(a, 'nobody').catch(error => error)
    expect(isFailure(failed, 'peerUnknown')).toBe(true)
    const missing = await a.peers.request('b', '/macfleet/none/1', Buffer.from('')).catch(e => e)
    expect(isFailure(missing, 'peerUnreachable')).toBe(true)
    await b.peers.handle('/macfleet/broken/1', () => {
      throw new Error('secret of the handler')
    })
    await b.peers.handle('/macfleet/slow/1', () => new Promise(() => {}))
    const broken = await a.peers.request('b', '/macfleet/broken/1', Buffer.from('')).catch(e => e)
    expect(isFailure(broken, 'peerFailed')).toBe(true)
    expect(broken.message).not.toContain('secret')
    const slow = a.peers.request('b', '/macfleet/slow/1', Buffer.from(''), { timeoutMs: 100 })
    await expect(slow).rejects.toThrow('longer than 100 ms')
    const large = a.peers.request('b', echo, Buffer.alloc(65_537))
    await expect(large).rejects.toThrow('could not answer')
    expect(await say(a, 'b', '3')).toBe('a3')
  })

  test('that are removed are out at once, on every protocol and both ways', async () => {
    const [a, b] = await startPair()
    if (a === undefined || b === undefined) throw new Error('no hosts')
    introduce(a, b)
    await eventually('connected', () => isConnected(a, b) && isConnected(b, a))
    // Only `a` has heard of it yet; `b` is the one that was removed, and does not care.
    a.members.set([a.member])
    expect(a.peers.connected()).toEqual([])
    await expect(say(a, 'b')).rejects.toThrow('not a member')
    await expect(say(b, 'a')).rejects.toThrow()
    await eventually('b is cut off', () => b.peers.connected().length === 0)
    await expect(say(b, 'a')).rejects.toThrow()
    const node = await startHostilePeer(b.identity)
    for (const protocol of protocols) {
      await expect(openAndRead(await connectHostile(node, a), protocol)).resolves.toBe('')
    }
    // Back in the list, back in the fleet.
    introduce(a, b)
    await eventually('connected again', () => isConnected(a, b) && isConnected(b, a))
    expect(await say(b, 'a')).toBe('bx')
  })

  test('who is no member learns nothing, whatever it says and asks', async () => {
    const [a, b] = await startPair()
    if (a === undefined || b === undefined) throw new Error('no hosts')
    introduce(a, b)
    await eventually('connected', () => isConnected(a, b))
    const node = await startHostilePeer(createIdentity(systemRandom))
    for (const protocol of protocols) {
      expect(await openAndRead(await connectHostile(node, a), protocol)).toBe('')
    }
    const connection = await connectHostile(node, a)
    await expect(connection === undefined || greet(connection, hello)).rejects.toThrow()
    expect(a.peers.connected().map(({ host }) => host)).toEqual(['b'])
  })

  test('a member that does not say hello, or the wrong one, gets nowhere', async () => {
    const { log, warnings } = keepWarnings()
    const a = await startEcho({ host: 'a', log, era: 5 })
    const eras: number[] = []
    a.peers.onHigherEra(era => eras.push(era))
    const identity = createIdentity(systemRandom)
    const address = { host: '127.0.0.1', gossipPort: 1 }
    a.members.set([a.member, { name: 'x', peerId: identity.peerId, address }])
    const node = await startHostilePeer(identity)
    for (const wrong of [{ fleetId: 'other' }, { era: 4 }]) {
      for (let round = 0; round < 2; round++) {
        const connection = await dialHostile(node, a)
        await expect(greet(connection, { ...hello, era: 5, ...wrong })).rejects.toThrow()
      }
    }
    const refused = warnings.filter(text => text.includes('was refused'))
    expect(refused).toHaveLength(2)
    expect(refused[0]).toContain('OtherFleet')
    expect(refused[1]).toContain('LowerEra')
    // Without a hello: not even identify answers, and the connection ends.
    const silent = await dialHostile(node, a)
    expect(await openAndRead(silent, echo)).toBe('')
    await eventually('the silent one is cut off', () => silent.status !== 'open')
    await greet(await dialHostile(node, a), { ...hello, era: 6 })
    expect(eras).toEqual([6])
  })

  test('garbage on every protocol ends a stream or a connection, and nothing else', async () => {
    const limits = { peerConnectionsPerSecond: 10_000 }
    const a = await startEcho({ host: 'a', gossip: true, limits })
    const identity = createIdentity(systemRandom)
    const address = { host: '127.0.0.1', gossipPort: 1 }
    a.members.set([a.member, { name: 'x', peerId: identity.peerId, address }])
    const node = await startHostilePeer(identity)
    const bytes = fc.uint8Array({ minLength: 1, maxLength: 3_000 })
    let spoken = 0
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...protocols),
        fc.array(bytes, { maxLength: 4 }),
        async (protocol, chunks) => {
          const connection = await connectHostile(node, a)
          if (connection === undefined) return
          if (protocol !== '/macfleet/hello/1') await greet(connection, hello)
          const stream = await connection.newStream(protocol)
          try {
            for (const chunk of chunks) stream.send(chunk)
            await stream.close({ signal: AbortSignal.timeout(1_000) })
          } catch {
            // It was cut off while it still spoke.
          }
          spoken++
          connection.abort(new Error('next'))
        },
      ),
      { numRuns: 60 },
    )
    expect(spoken).toBeGreaterThan(40)
    // And without libp2p: whatever it is that connects.
    const sockets = Array.from({ length: 40 }, () => connect(a.peers.port, '127.0.0.1'))
    for (const socket of sockets) {
      socket.on('error', () => {})
      socket.write(systemRandom.bytes(5_000))
    }
    const b = await startEcho({ host: 'b', gossip: true })
    introduce(a, b)
    await eventually('a is well', () => isConnected(a, b) && isConnected(b, a))
    expect(await say(b, 'a')).toBe('bx')
    for (const socket of sockets) socket.destroy()
  })
})

/** A connection, unless it is refused already. */
async function connectHostile(
  node: Awaited<ReturnType<typeof startHostilePeer>>,
  peer: TestPeer,
): Promise<Connection | undefined> {
  return dialHostile(node, peer).catch(() => undefined)
}

/** What a stream gives that just asks; nothing when it is not opened. */
async function openAndRead(connection: Connection | undefined, protocol: string): Promise<string> {
  try {
    const stream = await connection?.newStream(protocol)
    if (stream === undefined) return ''
    const read = drain(stream)
    stream.send(Buffer.from('hello?'))
    await stream.close()
    return (await read).toString('latin1')
  } catch {
    return ''
  }
}
