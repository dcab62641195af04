import type { Stream } from '@libp2p/interface'
import { describe, expect, test } from 'vitest'
import type { Limits } from '../../base/limits.ts'
import { systemRandom } from '../../base/random.ts'
import { plainFacts } from '../../test/support/facts.ts'
import {
  dialHostile,
  drain,
  gossipPacket,
  greet,
  startHostilePeer,
} from '../../test/support/hostile-peer.ts'
import {
  eventually,
  introduce,
  startTestPeer,
  stopTestPeer,
  type TestPeer,
} from '../../test/support/peers.ts'
import { createIdentity, type Identity, peerIdBytes } from '../peers/identity.ts'
import { decodeExchange, encodeExchange, type HandedOn } from './exchange-message.ts'
import { encodeFacts, messageOf } from './facts-message.ts'
import { factsTopicOf } from './gossip.ts'

const fleetId = 'fleet-of-the-test'
const topic = factsTopicOf(fleetId)
const start = (count: number, limits: Partial<Limits> = {}): Promise<TestPeer[]> =>
  Promise.all(Array.from({ length: count }, (_, n) => startTestPeer({ host: `host-${n}`, limits })))
const knows = (peer: TestPeer, count: number): boolean => peer.gossip?.facts.all().length === count
const cpuOf = (peer: TestPeer, host: string): number | undefined =>
  peer.gossip?.facts.of(host)?.cpuFraction

describe('gossip', () => {
  test('tells five hosts of each other, a newcomer too, and of a change', async () => {
    const hosts = await start(5)
    introduce(...hosts)
    await eventually('all know all', () => hosts.every(host => knows(host, 5)))
    const newcomer = await startTestPeer({ host: 'newcomer' })
    introduce(...hosts, newcomer)
    await eventually('the newcomer knows all', () => knows(newcomer, 6), 2_000)
    await eventually('all know the newcomer', () => hosts.every(host => knows(host, 6)), 2_000)

    const [first, second] = hosts
    if (first === undefined || second === undefined) throw new Error('no host')
    const digest = `sha256:${'ab'.repeat(32)}`
    first.own = { ...plainFacts, cpuFraction: 0.9, imageDigests: [digest] }
    first.gossip?.changed()
    const know = ({ gossip }: TestPeer): boolean => {
      const facts = gossip?.facts.of('host-0')
      return facts?.cpuFraction === 0.9 && facts.mayHoldImage(digest)
    }
    await eventually('all know of the change', () => [...hosts, newcomer].every(know), 1_000)
    const facts = newcomer.gossip?.facts.of('host-0')
    expect(facts).toMatchObject({ host: 'host-0', version: '0.1.0', ready: true, load1: 0.5 })
    expect(facts?.allocatable).toEqual(plainFacts.allocatable)
    expect(facts?.mayHoldImage(`sha256:${'cd'.repeat(32)}`)).toBe(false)

    // Who is removed is forgotten by those who know of it, and hears nothing any more.
    const rest = [first, ...hosts.slice(2), newcomer]
    introduce(...rest)
    expect(rest.every(host => host.gossip?.facts.of('host-1') === undefined)).toBe(true)
    first.own = { ...plainFacts, cpuFraction: 0.3 }
    first.gossip?.changed()
    await eventually('the rest knows', () => rest.every(host => cpuOf(host, 'host-0') === 0.3))
    expect(cpuOf(second, 'host-0')).toBe(0.9)
    expect(rest.every(host => host.gossip?.facts.of('host-1') === undefined)).toBe(true)
  })

  test('goes on after a restart with a clock that was set back by years', async () => {
    const [a] = await start(1)
    if (a === undefined) throw new Error('no host')
    const b = await startTestPeer({ host: 'b', wallMs: 4e12 })
    introduce(a, b)
    await eventually('both know both', () => knows(a, 2) && knows(b, 2))
    await stopTestPeer(b)
    const again = await startTestPeer({ host: 'b', identity: b.identity, wallMs: 1_000 })
    again.own = { ...plainFacts, cpuFraction: 0.7 }
    introduce(a, again)
    await eventually('a hears the new b', () => cpuOf(a, 'b') === 0.7)
    await eventually('b knows both', () => knows(again, 2))
  })
})

interface Scene {
  victim: TestPeer
  other: TestPeer
  evil: Identity
  /** Sends gossip to the victim. */
  gossip: Stream
  packet(from: string, data: Uint8Array, sequence: bigint): Uint8Array
  exchange(entries: HandedOn[]): Promise<HandedOn[]>
  isConnected(): boolean
}

/** Two hosts, and a member whose host was taken over. */
async function createScene(limits: Partial<Limits> = {}): Promise<Scene> {
  const [victim, other] = await start(2, limits)
  if (victim === undefined || other === undefined) throw new Error('no hosts')
  const evil = createIdentity(systemRandom)
  const address = { host: '127.0.0.1', gossipPort: 1 }
  const all = [victim.member, other.member, { name: 'evil', peerId: evil.peerId, address }]
  for (const { members } of [victim, other]) members.set(all)
  await eventually('both know both', () => knows(victim, 2) && knows(other, 2))
  const node = await startHostilePeer(evil)
  const connection = await dialHostile(node, victim)
  await greet(connection, { fleetId, era: 1, version: '', protocol: 1, host: 'evil' })
  return {
    victim,
    other,
    evil,
    gossip: await connection.newStream('/meshsub/1.2.0'),
    packet: (from, data, sequence) =>
      gossipPacket(topic, peerIdBytes(from) ?? data, data, sequence, evil.sign),
    async exchange(entries) {
      const stream = await connection.newStream('/macfleet/facts/1')
      stream.send(encodeExchange(entries))
      await stream.close()
      return decodeExchange((await drain(stream)).subarray(1), 100) ?? []
    },
    isConnected: () => connection.status === 'open',
  }
}

const factsOf = (sequence: number, cpuFraction: number): Uint8Array =>
  encodeFacts(messageOf(sequence, { ...plainFacts, cpuFraction }))

describe('a member that was taken over', () => {
  test('can speak for itself only, and not bring back what was said before', async () => {
    const scene = await createScene()
    const { victim, other, evil, gossip, packet } = scene
    const otherId = other.identity.peerId
    const before = await scene.exchange([])
    const genuine = before.find(({ message }) => message.peerId === otherId)
    if (genuine === undefined) throw new Error('the view was not handed on')
    expect(before.map(({ message }) => message.peerId)).toContain(victim.identity.peerId)
    other.own = { ...plainFacts, cpuFraction: 0.6 }
    other.gossip?.changed()
    await eventually('the victim knows', () => cpuOf(victim, 'host-1') === 0.6)

    const forged = { ...genuine.message, data: factsOf(2 ** 50, 0.99) }
    const signed = { ...forged, signature: evil.sign(forged.data) }
    const entries = [forged, signed, genuine.message].map(message => ({ message, ageMs: 0 }))
    await scene.exchange(entries)
    gossip.send(packet(otherId, factsOf(2 ** 50, 0.99), 7n))
    gossip.send(packet(victim.identity.peerId, factsOf(2 ** 50, 0.99), 8n))
    gossip.send(packet(createIdentity(systemRandom).peerId, factsOf(1, 0.99), 9n))
    // Last, as a sign that the others were read.
    gossip.send(packet(evil.peerId, factsOf(1, 0.42), 10n))
    await eventually('it was heard itself', () => cpuOf(victim, 'evil') === 0.42)
    expect(cpuOf(victim, 'host-1')).toBe(0.6)
    expect(cpuOf(victim, 'host-0')).toBe(0.1)
    expect(victim.gossip?.facts.all()).toHaveLength(3)
    await eventually('others heard it through the victim', () => cpuOf(other, 'evil') === 0.42)
  })

  test('is not heard more often than may be, nor with garbage or at length', async () => {
    const { victim, other, evil, gossip, packet, isConnected } = await createScene()
    let heard = 0
    other.gossip?.facts.onChange(host => {
      if (host === 'evil') heard++
    })
    gossip.send(packet(evil.peerId, Buffer.alloc(2_000, 1), 1n))
    gossip.send(packet(evil.peerId, Buffer.from('garbage'), 2n))
    for (let number = 1; number <= 200; number++) {
      gossip.send(packet(evil.peerId, factsOf(number, 0.2), BigInt(10 + number)))
    }
    await eventually('some of it was heard', () => heard > 0)
    await eventually('the victim is through', () => victim.peers.connected().length > 0)
    expect(heard).toBeLessThan(40)
    expect(isConnected()).toBe(true)
  })

  test('that floods is cut off for a while, and costs little memory', async () => {
    const { victim, other, evil, gossip, packet, isConnected } = await createScene({
      gossipBytesPerSecond: 64 * 1024,
    })
    const beforeBytes = process.memoryUsage().rss
    const floods = [packet(evil.peerId, Buffer.alloc(30_000, 7), 1n), Buffer.alloc(30_000, 7)]
    const flood = (): boolean => {
      try {
        for (const bytes of floods) gossip.send(bytes)
      } catch {
        // The stream is gone.
      }
      return !isConnected()
    }
    await eventually('it is cut off', flood)
    const mebibytes = (process.memoryUsage().rss - beforeBytes) / 2 ** 20
    expect(mebibytes).toBeLessThan(100)
    const node = await startHostilePeer(evil)
    const again = await dialHostile(node, victim).catch(() => undefined)
    await eventually('it is not let in', () => again?.status !== 'open')
    other.own = { ...plainFacts, cpuFraction: 0.8 }
    other.gossip?.changed()
    await eventually('the victim is well', () => cpuOf(victim, 'host-1') === 0.8)
  })
})
