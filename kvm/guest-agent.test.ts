import { join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import { systemClock } from '../base/clock.ts'
import { defaultLimits, type Limits } from '../base/limits.ts'
import { silentLog } from '../base/log.ts'
import { systemRandom } from '../base/random.ts'
import { type PeerConnection, startScriptedPeer } from '../test/support/scripted-peer.ts'
import { temporaryFolder } from '../test/support/temporary-folder.ts'
import { createGuestAgent, type GuestAgent } from './guest-agent.ts'

interface Request {
  execute: string
  arguments: Record<string, unknown>
}

/** Reads one request; what comes before it, such as the delimiter, is decoded as garbage. */
async function nextRequest(peer: PeerConnection): Promise<Request> {
  const line = await peer.nextLine()
  return JSON.parse(line.slice(line.indexOf('{')))
}

const returning = (value: unknown): string => `${JSON.stringify({ return: value })}\n`
const delimited = (text: string): Buffer => Buffer.concat([Buffer.of(0xff), Buffer.from(text)])

/** Answers guest-sync-delimited and gives the request after it. */
async function synchronize(peer: PeerConnection): Promise<Request> {
  const sync = await nextRequest(peer)
  expect(sync.execute).toBe('guest-sync-delimited')
  peer.send(delimited(returning(sync.arguments['id'])))
  return await nextRequest(peer)
}

async function agentOf(
  script: (peer: PeerConnection) => Promise<void>,
  limits: Partial<Limits> = {},
  syncTimeoutMs = 1000,
): Promise<GuestAgent> {
  const socketPath = join(temporaryFolder(), 'agent.sock')
  await startScriptedPeer(socketPath, script)
  const agent = createGuestAgent(
    { socketPath, syncTimeoutMs },
    {
      clock: systemClock,
      random: systemRandom,
      log: silentLog,
      limits: { ...defaultLimits, ...limits },
    },
  )
  onTestFinished(() => agent.close())
  return agent
}

/** An agent that obeys these commands. */
function obedient(commands: Record<string, unknown>) {
  return async (peer: PeerConnection): Promise<void> => {
    for (;;) {
      const request = await synchronize(peer)
      const known = request.execute in commands
      const error = { class: 'CommandNotFound', desc: `no\u001b[31m ${request.execute}\u0007` }
      peer.send(known ? returning(commands[request.execute]) : `${JSON.stringify({ error })}\n`)
    }
  }
}

describe('createGuestAgent', () => {
  it('finds its answer among stale ones, garbage and delimiters', async () => {
    const agent = await agentOf(async peer => {
      peer.send('half an old ans')
      const sync = await nextRequest(peer)
      peer.send(Buffer.of(0xff, 0xff, 0x00, 0xc3, 0x0a))
      peer.send(delimited(returning(4711)))
      // Long enough for a client that believes any number to send its command too early.
      for (let turn = 0; turn < 20; turn++) await new Promise(resolve => setImmediate(resolve))
      peer.send(delimited('{"error":{"class":"GenericError","desc":"JSON parse error"}}\n'))
      peer.send(delimited(returning(sync.arguments['id'])))
      await nextRequest(peer)
      peer.send(returning({}))
    })
    await agent.ping()
  })

  it('skips the rest of an answer that was given up for its length', async () => {
    let first = true
    const agent = await agentOf(
      async peer => {
        // The port has no connections: what QEMU still held goes to the next client.
        if (!first) peer.send(`${'x'.repeat(50_000)}"}\n`)
        await synchronize(peer)
        peer.send(first ? `{"return":"${'x'.repeat(50_000)}` : returning({}))
        first = false
      },
      { messageLineBytes: 1000 },
    )
    await expect(agent.ping()).rejects.toMatchObject({ code: 'agentAnswerTooLarge' })
    await agent.ping()
  })

  it('serves one request at a time, and a bounded number waits', async () => {
    const agent = await agentOf(obedient({ 'guest-ping': {} }), { agentRequestsWaiting: 3 })
    const three = [agent.ping(), agent.ping(), agent.ping()]
    await expect(agent.ping()).rejects.toMatchObject({ code: 'tooMany' })
    await Promise.all(three)
    await agent.ping()
  })

  it('says quickly that there is no agent', async () => {
    const silent = await agentOf(async () => {}, {}, 20)
    await expect(silent.ping()).rejects.toMatchObject({ code: 'agentUnavailable' })
    const components = {
      clock: systemClock,
      random: systemRandom,
      log: silentLog,
      limits: defaultLimits,
    }
    const nobody = createGuestAgent({ socketPath: join(temporaryFolder(), 'no.sock') }, components)
    await expect(nobody.ping()).rejects.toThrow('its QEMU is not there')
  })

  it('gives up on a slow answer and is well again with the next request', async () => {
    let slow = true
    const agent = await agentOf(async peer => {
      await synchronize(peer)
      if (!slow) peer.send(returning({}))
      slow = false
    })
    await expect(agent.ping({ timeoutMs: 20 })).rejects.toMatchObject({ code: 'timeout' })
    await agent.ping()
  })

  it('survives a peer that goes in the middle of an answer', async () => {
    let first = true
    const agent = await agentOf(async peer => {
      await synchronize(peer)
      peer.socket.end(first ? '{"ret' : returning({}))
      first = false
    })
    await expect(agent.ping()).rejects.toThrow('the connection was closed')
    await agent.ping()
  })

  it('hangs up on a guest that talks without being asked', async () => {
    const gone = Promise.withResolvers<void>()
    const agent = await agentOf(async peer => {
      await synchronize(peer)
      peer.socket.on('close', gone.resolve)
      peer.send(returning({}))
      peer.send('spam\n'.repeat(30_000))
    })
    await agent.ping()
    await gone.promise
  })

  it('forgets a request that is aborted, waiting or under way', async () => {
    let agreeable = false
    const agent = await agentOf(async peer => {
      while (agreeable) {
        await synchronize(peer)
        peer.send(returning({}))
      }
    })
    const abort = new AbortController()
    const both = [agent.ping({ signal: abort.signal }), agent.ping({ signal: abort.signal })]
    abort.abort(new Error('no longer wanted'))
    const reasons = (await Promise.allSettled(both)).map(
      one => 'reason' in one && one.reason.message,
    )
    expect(reasons).toEqual(['no longer wanted', 'no longer wanted'])
    agreeable = true
    await agent.ping()
    agent.close()
    await expect(agent.ping()).rejects.toMatchObject({ code: 'agentUnavailable' })
  })

  it('repeats a refusal without what could fool a terminal', async () => {
    const agent = await agentOf(obedient({}))
    await expect(agent.freezeStatus()).rejects.toThrow(
      'the guest agent refused guest-fsfreeze-status: no [31m guest-fsfreeze-status',
    )
  })

  it('lists interfaces and leaves out what is no address', async () => {
    const address = (ip: string, prefix: number) => ({
      'ip-address': ip,
      'ip-address-type': 'ipv4',
      prefix,
    })
    const addresses = [
      address('10.0.2.15', 24),
      address('fec0::1', 64),
      address('fe80::1%eth0', 64),
      address('10.0.2.15', 99),
      address('; rm -rf /', 1),
    ]
    const found = [
      { name: 'lo\u001b[2J' },
      { name: 'eth0', 'hardware-address': '52:54:00:AB:cd:ef', 'ip-addresses': addresses },
    ]
    const agent = await agentOf(obedient({ 'guest-network-get-interfaces': found }))
    expect(await agent.networkInterfaces()).toEqual([
      { name: 'lo [2J', mac: undefined, addresses: [] },
      {
        name: 'eth0',
        mac: '52:54:00:ab:cd:ef',
        addresses: [
          { address: '10.0.2.15', family: 'ipv4', prefix: 24 },
          { address: 'fec0::1', family: 'ipv6', prefix: 64 },
        ],
      },
    ])
  })

  it('refuses answers of another form', async () => {
    const strange = { 'guest-network-get-interfaces': 'all', 'guest-exec': { pid: '1' } }
    const agent = await agentOf(obedient(strange))
    const expected = { code: 'agentAnswerInvalid' }
    await expect(agent.networkInterfaces()).rejects.toMatchObject(expected)
    await expect(agent.execute({ path: 'id' })).rejects.toMatchObject(expected)
  })

  it('runs a command: arguments, input, polling, and output of bounded size', async () => {
    let polls = 0
    const agent = await agentOf(
      async peer => {
        for (;;) {
          const request = await synchronize(peer)
          if (request.execute === 'guest-exec') {
            expect(request.arguments).toEqual({
              path: 'cat',
              arg: ['-'],
              env: ['A=b'],
              'input-data': 'aGVsbG8=',
              'capture-output': true,
            })
            peer.send(returning({ pid: 7 }))
            continue
          }
          expect(request.arguments).toEqual({ pid: 7 })
          const output = Buffer.from('0123456789').toString('base64')
          const done = { exited: true, exitcode: 3, 'out-data': output, 'err-data': 'b29wcw==' }
          peer.send(returning(++polls < 3 ? { exited: false } : done))
        }
      },
      { agentCommandBytes: 8 },
    )
    const input = Buffer.from('hello')
    const command = { path: 'cat', args: ['-'], environment: ['A=b'], input }
    const result = await agent.execute(command)
    expect(result).toMatchObject({ code: 3, signal: null, truncated: true })
    expect([result.stdout.toString(), result.stderr.toString()]).toEqual(['01234567', 'oops'])
    const large = agent.execute({ path: 'cat', input: Buffer.alloc(9) })
    await expect(large).rejects.toMatchObject({ code: 'tooLarge' })
  })

  it('stops waiting for a command at its deadline', async () => {
    const endless = { 'guest-exec': { pid: 1 }, 'guest-exec-status': { exited: false } }
    const agent = await agentOf(obedient(endless))
    const endlessly = agent.execute({ path: 'sleep' }, { timeoutMs: 40 })
    await expect(endlessly).rejects.toThrow('sleep in the guest took longer than 40 ms')
  })

  it('takes silence after guest-shutdown as consent, and a refusal as one', async () => {
    const quiet = await agentOf(async peer => {
      await synchronize(peer)
      peer.drop()
    })
    await quiet.shutdown()
    const stubborn = await agentOf(obedient({}))
    await expect(stubborn.shutdown()).rejects.toMatchObject({ code: 'agentRefused' })
  })
})
