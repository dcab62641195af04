import { join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import { systemClock } from '../base/clock.ts'
import { defaultLimits } from '../base/limits.ts'
import { silentLog } from '../base/log.ts'
import { type PeerConnection, startScriptedPeer } from '../test/support/scripted-peer.ts'
import { temporaryFolder } from '../test/support/temporary-folder.ts'
import { attachGuest, type GuestStatus } from './guest.ts'

const stamp = '"timestamp":{"seconds":1700000000,"microseconds":0}'

/** A QEMU of which the test says in which run state it is, and what it does with other commands. */
async function scriptedQemu(
  onCommand: (name: string, peer: PeerConnection) => unknown = () => ({}),
) {
  const qmp = join(temporaryFolder(), 'qmp.sock')
  const qemu = { runState: 'running', peers: [] as PeerConnection[], queries: 0 }
  await startScriptedPeer(qmp, async peer => {
    qemu.peers.push(peer)
    peer.send('{"QMP":{"version":{"qemu":{"micro":0,"minor":2,"major":7}}}}\n')
    for (;;) {
      const { execute, id } = JSON.parse(await peer.nextLine())
      let returned: unknown = {}
      if (execute === 'query-status') {
        qemu.queries++
        returned = { status: qemu.runState, running: qemu.runState === 'running' }
      } else if (execute !== 'qmp_capabilities') {
        returned = onCommand(execute, peer)
      }
      peer.send(`${JSON.stringify({ return: returned, id })}\n`)
    }
  })
  const backoff = { firstMs: 1, mostMs: 5 }
  const components = { clock: systemClock, log: silentLog, limits: defaultLimits }
  const guest = attachGuest({ folder: { qmp }, backoff, commandTimeoutMs: 2000 }, components)
  onTestFinished(() => guest.close())
  const until = (predicate: (status: GuestStatus) => boolean) =>
    guest.waitFor(predicate, { what: 'the test', timeoutMs: 5000 })
  return { qemu, guest, until }
}

describe('attachGuest', () => {
  it('asks anew after each connection and believes no event for the state', async () => {
    const { qemu, guest, until } = await scriptedQemu()
    const seen: (string | undefined)[] = []
    guest.onChange(status => seen.push(status.connected ? status.runState : 'lost'))
    await until(status => status.runState === 'running')
    qemu.runState = 'guest-panicked'
    qemu.peers[0]?.drop()
    await until(status => status.runState === 'guest-panicked')
    // The event says stopped, the answer says what for.
    qemu.runState = 'shutdown'
    qemu.peers[1]?.send(`{"event":"STOP",${stamp}}\n`)
    await until(status => status.runState === 'shutdown')
    expect(seen).toEqual(['running', 'lost', 'guest-panicked', 'shutdown'])
  })

  it('asks once more, not once each, for many events', async () => {
    const { qemu, guest, until } = await scriptedQemu()
    await until(status => status.connected)
    const before = qemu.queries
    let heard = 0
    guest.onEvent(() => heard++)
    qemu.runState = 'paused'
    qemu.peers[0]?.send(`{"event":"STOP",${stamp}}\n{"event":"RESUME",${stamp}}\n`.repeat(500))
    await until(status => status.runState === 'paused')
    await guest.query('query-status')
    expect(heard).toBe(1000)
    expect(qemu.queries - before).toBeLessThan(100)
  })

  it('counts a QEMU that goes before it has answered quit as gone', async () => {
    const { guest, until } = await scriptedQemu((_, peer) => peer.drop())
    await until(status => status.connected)
    await guest.perform({ kind: 'quit' })
  })

  it('fails an action under way when QEMU goes', async () => {
    const { guest, until } = await scriptedQemu((name, peer) => {
      if (name === 'system_reset') setImmediate(() => peer.drop())
      return {}
    })
    await until(status => status.connected)
    const reset = guest.perform({ kind: 'reset' })
    await expect(reset).rejects.toMatchObject({ code: 'guestUnreachable' })
  })

  it('ends every wait: by time, by signal, by letting go', async () => {
    const { guest, until } = await scriptedQemu()
    await until(status => status.connected)
    const never = () => false
    const brief = guest.waitFor(never, { what: 'doomsday', timeoutMs: 5 })
    await expect(brief).rejects.toThrow('waiting for doomsday took longer than 5 ms')
    const abort = new AbortController()
    const options = { what: 'doomsday', timeoutMs: 60_000 }
    const aborted = guest.waitFor(never, { ...options, signal: abort.signal })
    abort.abort(new Error('enough'))
    await expect(aborted).rejects.toThrow('enough')
    const orphaned = guest.waitFor(never, options)
    const closing = guest.close()
    await expect(orphaned).rejects.toMatchObject({ code: 'guestUnreachable' })
    await closing
    await expect(guest.perform({ kind: 'pause' })).rejects.toThrow('QEMU does not answer')
    await expect(guest.waitFor(never, options)).rejects.toThrow('we let go of the guest')
  })

  it('keeps telling the others when one listener throws', async () => {
    const { qemu, guest, until } = await scriptedQemu()
    guest.onChange(() => {
      throw new Error('a mistake of ours')
    })
    qemu.runState = 'paused'
    await until(status => status.runState === 'paused')
  })
})
