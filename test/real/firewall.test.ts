import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { CommandRunner } from '../../base/command.ts'
import { runCommand } from '../../base/command.ts'
import { applyFirewall, removeFirewall } from '../../kvm/firewall.ts'

// Two network namespaces: `host` is the machine that runs guests, `router` its gateway, with a
// service on the network between them and one beyond it (on an address that is only routed).
const host = `mfh${process.pid}`
const router = `mfr${process.pid}`
const guestUser = 300_000
const users = { first: guestUser, last: guestUser + 9 }
const servers: ReturnType<typeof spawn>[] = []

const inHost: CommandRunner = (command, args, options) =>
  runCommand('ip', ['netns', 'exec', host, command, ...args], options)

function ip(...args: string[]): void {
  execFileSync('ip', args)
}

/** A TCP service that greets, in a namespace, as a user. */
async function serve(namespace: string, address: string, port: number, user = 0): Promise<void> {
  const script = `require('net').createServer(socket => socket.end('hello'))
    .listen(${port}, '${address}', () => console.log('up'))`
  const as = ['setpriv', `--reuid=${user}`, `--regid=${user}`, '--clear-groups', '--']
  const args = ['netns', 'exec', namespace, ...as, process.execPath, '-e', script]
  const server = spawn('ip', args, { stdio: ['ignore', 'pipe', 'inherit'] })
  servers.push(server)
  if (server.stdout) await once(server.stdout, 'data')
}

/** What a user of the host meets at an address: a greeting, or the error's code. */
async function reach(address: string, port: number, user = guestUser): Promise<string> {
  const script = `require('net').connect({host:'${address}',port:${port},timeout:5000})
    .on('data',d=>console.log(String(d))).on('error',e=>console.log(e.code))
    .on('timeout',()=>{console.log('hangs');process.exit()})`
  const as = [`--reuid=${user}`, `--regid=${user}`, '--clear-groups', '--']
  const args = [...as, process.execPath, '-e', script]
  return (await inHost('setpriv', args, { timeoutMs: 10_000 })).stdout.trim()
}

const init = {
  name: `test_${process.pid}`,
  users,
  resolvers: ['198.51.100.2'],
  closedNetworks: ['198.51.100.1/30'],
}

describe.skipIf(process.getuid?.() !== 0)('the firewall of the guests', () => {
  beforeAll(async () => {
    for (const namespace of [host, router]) {
      ip('netns', 'add', namespace)
      ip('-n', namespace, 'link', 'set', 'lo', 'up')
    }
    ip('-n', host, 'link', 'add', 'v0', 'type', 'veth', 'peer', 'name', 'v1', 'netns', router)
    ip('-n', host, 'address', 'add', '198.51.100.1/30', 'dev', 'v0')
    ip('-n', host, 'address', 'add', '192.0.2.77/32', 'dev', 'lo')
    ip('-n', router, 'address', 'add', '198.51.100.2/30', 'dev', 'v1')
    ip('-n', router, 'address', 'add', '203.0.113.1/32', 'dev', 'lo')
    ip('-n', host, 'link', 'set', 'v0', 'up')
    ip('-n', router, 'link', 'set', 'v1', 'up')
    ip('-n', host, 'route', 'add', 'default', 'via', '198.51.100.2')
    await Promise.all([
      serve(router, '0.0.0.0', 8000),
      serve(router, '198.51.100.2', 53),
      serve(host, '0.0.0.0', 8000),
      serve(host, '127.0.0.1', 9000, guestUser),
    ])
  })

  afterAll(() => {
    for (const server of servers) server.kill('SIGKILL')
    for (const namespace of [host, router]) ip('netns', 'delete', namespace)
  })

  test('keeps them off the host and its networks, and lets the rest pass', async () => {
    const open = await Promise.all([
      reach('127.0.0.1', 8000),
      reach('192.0.2.77', 8000),
      reach('198.51.100.2', 8000),
    ])
    expect(open, 'without it everything is reached').toEqual(['hello', 'hello', 'hello'])

    await applyFirewall(init, inHost)
    await applyFirewall(init, inHost)
    const found = {
      loopback: await reach('127.0.0.1', 8000),
      anotherGuestsForward: await reach('127.0.0.1', 9000),
      ownAddress: await reach('192.0.2.77', 8000),
      neighbour: await reach('198.51.100.2', 8000),
      nameServer: await reach('198.51.100.2', 53),
      internet: await reach('203.0.113.1', 8000),
      forwardFromHost: await reach('127.0.0.1', 9000, 0),
      hostItself: await reach('127.0.0.1', 8000, 0),
      afterTheRange: await reach('127.0.0.1', 8000, users.last + 1),
    }
    expect(found).toEqual({
      loopback: 'EHOSTUNREACH',
      anotherGuestsForward: 'EHOSTUNREACH',
      ownAddress: 'EHOSTUNREACH',
      neighbour: 'EHOSTUNREACH',
      nameServer: 'hello',
      internet: 'hello',
      forwardFromHost: 'hello',
      hostItself: 'hello',
      afterTheRange: 'hello',
    })
  })

  test('is gone when it was removed', async () => {
    await removeFirewall(init.name, inHost)
    await removeFirewall(init.name, inHost)
    expect(await reach('127.0.0.1', 8000)).toBe('hello')
    expect((await inHost('nft', ['list', 'tables'], { timeoutMs: 5000 })).stdout).toBe('')
  })
})
