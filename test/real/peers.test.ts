import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { systemRandom } from '../../base/random.ts'
import type { PeerMember } from '../../cluster/peers/allow-list.ts'
import { fleetTagOf } from '../../cluster/peers/fleet-tag.ts'
import { createIdentity } from '../../cluster/peers/identity.ts'
import type { PeerChild, PeerChildLine } from '../support/peer-child.ts'
import { eventually } from '../support/peers.ts'

const root = process.getuid?.() === 0
const rack = `macfleet-test-peers-${process.pid}`
const namespaces = [rack]
const children: ChildProcess[] = []
const ip = (...args: string[]): string => execFileSync('ip', args, { encoding: 'utf8' })

interface Child {
  lines: PeerChildLine[]
  found(): string[]
  hosts(): string[]
}

/** A host in a namespace of its own on the rack's bridge, with the routes that it is given. */
function plug(name: string, address: string | undefined, routes: string[][]): string {
  const namespace = `${rack}-${name}`
  ip('netns', 'add', namespace)
  namespaces.push(namespace)
  ip('-n', namespace, 'link', 'set', 'lo', 'up')
  if (address === undefined) return namespace
  const link = ['link', 'add', name, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', namespace]
  ip('-n', rack, ...link)
  ip('-n', rack, 'link', 'set', name, 'master', 'bridge', 'up')
  ip('-n', namespace, 'address', 'add', `${address}/24`, 'dev', 'eth0')
  ip('-n', namespace, 'link', 'set', 'eth0', 'up')
  for (const route of routes) ip('-n', namespace, 'route', 'add', ...route)
  return namespace
}

function startChild(namespace: string, given: PeerChild): Child {
  const program = new URL('../support/peer-child.ts', import.meta.url).pathname
  const command = [process.execPath, program, JSON.stringify(given)]
  const child = spawn('ip', ['netns', 'exec', namespace, ...command], {
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  children.push(child)
  const lines: PeerChildLine[] = []
  createInterface({ input: child.stdout }).on('line', line => lines.push(JSON.parse(line)))
  return {
    lines,
    found: () =>
      lines.flatMap(({ found }) => (found ? [`${found.address} ${found.fleetTag}`] : [])).sort(),
    hosts: () => lines.findLast(({ hosts }) => hosts !== undefined)?.hosts?.sort() ?? [],
  }
}

/** Sends garbage to all who listen for mDNS, and ends. */
function flood(namespace: string): void {
  const script = `
    const { randomBytes, randomInt } = require('node:crypto')
    const socket = require('node:dgram').createSocket('udp4')
    const question = Buffer.from('000000000001000000000000', 'hex')
    const name = Buffer.from('095f6d6163666c656574045f746370056c6f63616c00', 'hex')
    for (let count = 0; count < 3000; count++) {
      const asked = count % 2 ? name : Buffer.from([0xc0, 12])
      const parts = [question, asked, randomBytes(randomInt(300))]
      const bytes = count % 3 ? Buffer.concat(parts) : randomBytes(1 + randomInt(900))
      socket.send(bytes, 5353, '224.0.0.251')
    }
    setTimeout(() => socket.close(), 200)`
  execFileSync('ip', ['netns', 'exec', namespace, process.execPath, '-e', script])
}

const identities = [0, 1, 2].map(() => createIdentity(systemRandom))
const addressOf = (number: number): string => `10.99.7.${number + 1}`
const members: PeerMember[] = identities.map(({ peerId }, number) => ({
  name: `host-${number}`,
  peerId,
  address: { host: addressOf(number), gossipPort: 7481 },
}))
const childOf = (number: number): PeerChild => ({
  host: `host-${number}`,
  secret: Buffer.from(identities[number]?.secret() ?? []).toString('hex'),
  fleetId: 'one',
  address: addressOf(number),
  peerPort: 7480,
  gossipPort: 7481,
  members,
})

describe.runIf(root)('hosts on a bridge', () => {
  beforeAll(() => {
    ip('netns', 'add', rack)
    ip('-n', rack, 'link', 'add', 'bridge', 'type', 'bridge', 'mcast_snooping', '0')
    ip('-n', rack, 'link', 'set', 'bridge', 'up')
  })

  afterAll(async () => {
    // `ip netns exec` becomes the program that it starts, so this is the program's own end.
    for (const child of children) child.kill('SIGKILL')
    await eventually('the children have ended', () => children.every(hasEnded))
    for (const namespace of namespaces) ip('netns', 'delete', namespace)
  })

  test('find each other by mDNS, other fleets too, without a route; and gossip', async () => {
    const multicast = [['224.0.0.0/4', 'dev', 'eth0']]
    const first = startChild(plug('h0', addressOf(0), multicast), childOf(0))
    // Neither a default route nor one for multicast.
    const second = startChild(plug('h1', addressOf(1), []), childOf(1))
    const stranger = startChild(plug('h3', addressOf(3), []), {
      ...childOf(0),
      fleetId: 'other',
      address: addressOf(3),
      members: [],
    })
    const [one, other] = [fleetTagOf('one'), fleetTagOf('other')]
    const seenBy = (numbers: number[]): string[] =>
      numbers.map(number => `${addressOf(number)} ${number === 3 ? other : one}`)
    await eventually('all three have found the others', () =>
      [first, second, stranger].every(child => child.found().length === 2),
    )
    expect(first.found()).toEqual(seenBy([1, 3]))
    expect(second.found()).toEqual(seenBy([0, 3]))
    expect(stranger.found()).toEqual(seenBy([0, 1]))
    await eventually('two know each other', () =>
      [first, second].every(child => child.hosts().join() === 'host-0,host-1'),
    )
    flood(plug('h5', addressOf(5), multicast))
    const third = startChild(plug('h2', addressOf(2), multicast), childOf(2))
    await eventually('the third knows all', () => third.hosts().length === 3)
    await eventually('all know the third', () =>
      [first, second].every(child => child.hosts().length === 3),
    )
    await eventually('it was found by the others', () =>
      [first, second].every(child => child.found().some(host => host.startsWith(addressOf(2)))),
    )
    await eventually('multicast was judged', () => obstacleOf(second) !== undefined)
    expect(obstacleOf(second)).toBe('')
  })

  test('say so when multicast leads nowhere', async () => {
    const lonely = startChild(plug('h4', undefined, []), { ...childOf(0), members: [] })
    await eventually('multicast was judged', () => obstacleOf(lonely) !== undefined)
    expect(obstacleOf(lonely)).toContain('does not come back')
  })
})

function obstacleOf({ lines }: Child): string | undefined {
  return lines.find(({ obstacle }) => obstacle !== undefined)?.obstacle
}

function hasEnded({ exitCode, signalCode }: ChildProcess): boolean {
  return exitCode !== null || signalCode !== null
}
