import { symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import { systemClock } from '../../base/clock.ts'
import { defaultLimits, type Limits } from '../../base/limits.ts'
import { silentLog } from '../../base/log.ts'
import { type PeerConnection, startScriptedPeer } from '../../test/support/scripted-peer.ts'
import { temporaryFolder } from '../../test/support/temporary-folder.ts'
import { connectQmp, isRefusal, type QmpClientInit } from './client.ts'
import type { QmpEvent } from './events.ts'

const greeting = '{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}}}}\r\n'
const running = { status: 'running', running: true }

interface Command {
  id: number
  execute: string
  arguments: unknown
}

async function nextCommand(peer: PeerConnection): Promise<Command> {
  return JSON.parse(await peer.nextLine())
}

const answer = (command: Command, returned: unknown): string =>
  `${JSON.stringify({ return: returned, id: command.id })}\r\n`

/** Plays QEMU up to the end of the negotiation. */
async function negotiate(peer: PeerConnection): Promise<void> {
  peer.send(greeting)
  peer.send(answer(await nextCommand(peer), {}))
}

async function connect(
  script: (peer: PeerConnection) => Promise<void>,
  init: Partial<QmpClientInit> = {},
  limits: Partial<Limits> = {},
) {
  const socketPath = join(temporaryFolder(), 'qmp.sock')
  await startScriptedPeer(socketPath, script)
  const components = { clock: systemClock, log: silentLog, limits: { ...defaultLimits, ...limits } }
  const client = await connectQmp({ socketPath, ...init }, components)
  onTestFinished(() => client.close())
  return client
}

describe('connectQmp', () => {
  it('greets, negotiates, and runs a command', async () => {
    const client = await connect(async peer => {
      await negotiate(peer)
      const command = await nextCommand(peer)
      expect(command).toMatchObject({ execute: 'balloon', arguments: { value: 1024 } })
      peer.send(answer(command, {}))
    })
    expect(client.version).toBe('7.2.22')
    expect(await client.execute('balloon', { value: 1024 })).toEqual({})
  })

  it('puts answers that overtake each other, in pieces, with the right command', async () => {
    const client = await connect(async peer => {
      await negotiate(peer)
      const first = await nextCommand(peer)
      const second = await nextCommand(peer)
      const text = answer(second, { actual: 5 }) + answer(first, running)
      for (const byte of Buffer.from(text)) peer.send(Buffer.of(byte))
    })
    const both = [client.execute('query-status'), client.execute('query-balloon')]
    expect(await Promise.all(both)).toEqual([running, { actual: 5 }])
  })

  it('passes events on in order: known ones typed, strange ones as unknown', async () => {
    const events: QmpEvent[] = []
    const stamp = '"timestamp":{"seconds":1700000000,"microseconds":250999}'
    const client = await connect(
      async peer => {
        peer.send(`{"event":"RESUME",${stamp}}\n`)
        await negotiate(peer)
        const command = await nextCommand(peer)
        peer.send(`{"event":"SHUTDOWN","data":{"guest":true,"reason":"guest-shutdown"},${stamp}}\n`)
        peer.send(`{"event":"SHUTDOWN","data":{"guest":"yes"},${stamp}}\n`)
        peer.send(`{"event":"toString","data":[1],${stamp}}\n`)
        peer.send(answer(command, running))
      },
      { onEvent: event => events.push(event) },
    )
    await client.execute('query-status')
    const timestampMs = 1700000000250
    expect(events).toEqual([
      { event: 'RESUME', data: {}, timestampMs },
      { event: 'SHUTDOWN', data: { guest: true, reason: 'guest-shutdown' }, timestampMs },
      { event: 'UNKNOWN', name: 'SHUTDOWN', data: { guest: 'yes' }, timestampMs },
      { event: 'UNKNOWN', name: 'toString', data: [1], timestampMs },
    ])
  })

  it('survives a listener that throws', async () => {
    const client = await connect(
      async peer => {
        await negotiate(peer)
        peer.send('{"event":"STOP","timestamp":{"seconds":-1,"microseconds":-1}}\n')
        peer.send(answer(await nextCommand(peer), running))
      },
      {
        onEvent: () => {
          throw new Error('a mistake of ours')
        },
      },
    )
    expect(await client.execute('query-status')).toEqual(running)
  })

  it("turns QEMU's refusal into a failure with QEMU's words and class", async () => {
    const client = await connect(async peer => {
      await negotiate(peer)
      const { id } = await nextCommand(peer)
      const error = { class: 'DeviceNotFound', desc: "Device 'x' not found" }
      peer.send(`${JSON.stringify({ error, id })}\n`)
    })
    const refusal = await client.execute('device_del', { id: 'x' }).catch(error => error)
    expect(refusal.message).toBe("QEMU refused device_del: Device 'x' not found")
    expect(isRefusal(refusal, 'DeviceNotFound')).toBe(true)
    expect(isRefusal(refusal, 'GenericError')).toBe(false)
  })

  it('fails an answer that does not have the documented form, and lives on', async () => {
    const client = await connect(async peer => {
      await negotiate(peer)
      peer.send(answer(await nextCommand(peer), { status: 'dancing', running: 1 }))
      peer.send(answer(await nextCommand(peer), running))
    })
    await expect(client.execute('query-status')).rejects.toMatchObject({
      code: 'qemuAnswerInvalid',
    })
    expect(await client.execute('query-status')).toEqual(running)
  })

  it('gives up on a slow command and drops its late answer', async () => {
    const client = await connect(async peer => {
      await negotiate(peer)
      const slow = await nextCommand(peer)
      const next = await nextCommand(peer)
      peer.send(answer(slow, { actual: 1 }) + answer(next, running))
    })
    const slow = client.execute('query-balloon', {}, { timeoutMs: 20 })
    await expect(slow).rejects.toMatchObject({ code: 'timeout' })
    expect(await client.execute('query-status')).toEqual(running)
  })

  it('lets only so many commands wait, those that timed out included', async () => {
    const client = await connect(negotiate, {}, { qmpCommandsWaiting: 2 })
    const slow = client.execute('query-balloon', {}, { timeoutMs: 5 })
    await expect(slow).rejects.toMatchObject({ code: 'timeout' })
    const waiting = client.execute('query-status')
    await expect(client.execute('stop')).rejects.toMatchObject({ code: 'tooMany' })
    client.close()
    await expect(waiting).rejects.toMatchObject({ code: 'guestUnreachable' })
  })

  const badLines = {
    garbage: '\u0000\u00ff{{{{\n',
    'a JSON value that is no object': '[1,2]\n',
    'an error without an id': '{"error":{"class":"GenericError","desc":"JSON parse error"}}\n',
    'an answer to what was not asked': '{"return":{},"id":4711}\n',
    'an event without a time': '{"event":"STOP"}\n',
    'a line too long': `{"return":"${'x'.repeat(2000)}\n`,
  }
  for (const [what, line] of Object.entries(badLines)) {
    it(`treats ${what} as a broken connection`, async () => {
      const client = await connect(
        async peer => {
          await negotiate(peer)
          await nextCommand(peer)
          peer.send(line)
        },
        {},
        { messageLineBytes: 1000 },
      )
      await expect(client.execute('query-status')).rejects.toMatchObject({
        code: 'guestUnreachable',
      })
      expect((await client.ended).message).toContain('it ')
      await expect(client.execute('stop')).rejects.toMatchObject({ code: 'guestUnreachable' })
    })
  }

  it('fails what was under way when the peer goes in the middle of an answer', async () => {
    const client = await connect(async peer => {
      await negotiate(peer)
      await nextCommand(peer)
      peer.socket.end('{"return": {"sta')
    })
    const command = client.execute('query-status')
    await expect(command).rejects.toThrow('the connection was closed')
  })

  it('says so when there is no greeting, as for the second client of one socket', async () => {
    const second = connect(async () => {}, { connectTimeoutMs: 30 })
    await expect(second).rejects.toThrow('no greeting')
  })

  it('connects to nothing but a socket that lies there itself', async () => {
    const folder = temporaryFolder()
    const components = { clock: systemClock, log: silentLog, limits: defaultLimits }
    await startScriptedPeer(join(folder, 'other.sock'), negotiate)
    symlinkSync(join(folder, 'other.sock'), join(folder, 'link.sock'))
    writeFileSync(join(folder, 'file.sock'), '')
    for (const name of ['link.sock', 'file.sock']) {
      await expect(
        connectQmp({ socketPath: join(folder, name) }, components),
      ).rejects.toMatchObject({ code: 'guestSocketRefused' })
    }
    const nothing = connectQmp({ socketPath: join(folder, 'none.sock') }, components)
    await expect(nothing).rejects.toMatchObject({ code: 'guestUnreachable' })
  })
})
