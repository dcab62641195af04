import { readFileSync, statSync } from 'node:fs'
import type { Duplex } from 'node:stream'
import { describe, expect, it, onTestFinished } from 'vitest'
import { sleep, systemClock } from '../../base/clock.ts'
import { defaultLimits } from '../../base/limits.ts'
import { silentLog } from '../../base/log.ts'
import { systemRandom } from '../../base/random.ts'
import { attachConsole, type Console } from '../../kvm/console.ts'
import { endingOf } from '../../kvm/ending.ts'
import { attachGuest, type Guest } from '../../kvm/guest.ts'
import { createGuestAgent, type GuestAgent } from '../../kvm/guest-agent.ts'
import type { RunState } from '../../kvm/qmp/commands.ts'
import { type ShutdownInit, shutDownGuest } from '../../kvm/shutdown.ts'
import { type BareQemu, consoleArguments, startBareQemu } from '../support/bare-qemu.ts'
import { bootSectorArguments } from '../support/boot-sector.ts'
import { microGuestArguments, microGuestIsBuilt } from '../support/demo-guest.ts'
import { temporaryFolder } from '../support/temporary-folder.ts'

const components = {
  clock: systemClock,
  random: systemRandom,
  log: silentLog,
  limits: defaultLimits,
}

interface Controlled {
  qemu: BareQemu
  guest: Guest
  console: Console
  firstByteAtMs: Promise<number>
}

async function start(args: readonly string[]): Promise<Controlled> {
  const startedAtMs = systemClock.wallMs()
  const qemu = await startBareQemu([...args, ...consoleArguments])
  const firstByte = Promise.withResolvers<number>()
  const guest = attachGuest({ folder: qemu }, components)
  const console = attachConsole(
    { folder: qemu, startedAtMs, onFirstByte: firstByte.resolve },
    components,
  )
  onTestFinished(async () => {
    await console.close()
    await guest.close()
  })
  return { qemu, guest, console, firstByteAtMs: firstByte.promise }
}

const waitForState = (guest: Guest, runState: RunState, timeoutMs = 20_000) =>
  guest.waitFor(status => status.runState === runState, { what: runState, timeoutMs })

/** Reads until the text is there; the test's own time limit is the deadline. */
async function readUntil(session: Duplex, text: string): Promise<string> {
  let seen = ''
  while (!seen.includes(text)) {
    const bytes: Buffer | null = session.read()
    if (bytes !== null) seen += bytes.toString('latin1')
    else await new Promise(resolve => session.once('readable', resolve))
  }
  return seen
}

function shutdownInit({ qemu, guest }: Controlled): ShutdownInit {
  const kill = async () => {
    qemu.kill('SIGKILL')
    await qemu.exited
  }
  return { guest, deadlineMs: 15_000, kill, exited: qemu.exited }
}

describe('a guest of 68 bytes', () => {
  const startBootSector = () => start(bootSectorArguments(temporaryFolder()))

  it('says its first byte, and returns what is typed in any session', async () => {
    const startedAtMs = systemClock.wallMs()
    const { console, firstByteAtMs, qemu } = await startBootSector()
    const sessions = [await console.open(), await console.open()]
    const [first] = sessions
    expect((await firstByteAtMs) - startedAtMs).toBeLessThan(10_000)
    first?.write('hi?')
    for (const session of sessions) expect(await readUntil(session, '?')).toBe('Rhi?')
    expect(await readUntil(await console.open(), '?')).toBe('Rhi?')
    expect(readFileSync(qemu.consoleLog, 'utf8')).toBe('Rhi?')
  })

  it('leaves its panic to be found by whoever comes later', async () => {
    const { guest, console, qemu } = await startBootSector()
    const session = await console.open()
    await readUntil(session, 'R')
    await guest.close()
    session.write('p')
    const events: string[] = []
    const later = attachGuest({ folder: qemu }, components)
    onTestFinished(() => later.close())
    later.onEvent(event => events.push(event.event))
    const { runState } = await waitForState(later, 'guest-panicked')
    expect(endingOf({ runState, meant: false, exit: undefined })?.cause).toBe('GuestPanicked')
    await expect(later.perform({ kind: 'resume' })).rejects.toMatchObject({
      code: 'actionNotAllowed',
    })
    await later.perform({ kind: 'reset' })
    expect(later.status().runState).toBe('running')
    expect(events).toContain('RESET')
  })

  it('is shut down gracefully when it hears the power button only the second time', async () => {
    const controlled = await startBootSector()
    const { guest, console, qemu } = controlled
    const session = await console.open()
    await readUntil(session, 'R')
    let pressed = 0
    guest.onEvent(event => {
      if (event.event !== 'POWERDOWN') return
      pressed++
      session.write('e')
    })
    const init = { ...shutdownInit(controlled), repeatAfterMs: 300 }
    expect(await shutDownGuest(init, components)).toBe('graceful')
    expect(pressed).toBe(2)
    expect(guest.status().runState).toBe('shutdown')
    expect(await qemu.exited).toEqual({ code: 0, signal: null })
  })

  it('is resumed to hear, and forced when it never does', async () => {
    const controlled = await startBootSector()
    const { guest, console, qemu } = controlled
    await readUntil(await console.open(), 'R')
    await guest.perform({ kind: 'pause' })
    const init = { ...shutdownInit(controlled), deadlineMs: 200, repeatAfterMs: 50 }
    expect(await shutDownGuest(init, components)).toBe('forced')
    expect(guest.status().runState).toBe('running')
    expect(await qemu.exited).toEqual({ code: 0, signal: null })
  })

  it('is killed when QEMU itself hears nothing', async () => {
    const controlled = await startBootSector()
    const { guest, qemu } = controlled
    await waitForState(guest, 'running')
    qemu.kill('SIGSTOP')
    const init = { ...shutdownInit(controlled), deadlineMs: 100, quitTimeoutMs: 100 }
    const deaf = attachGuest({ folder: qemu, commandTimeoutMs: 100 }, components)
    onTestFinished(() => deaf.close())
    expect(await shutDownGuest({ ...init, guest: deaf }, components)).toBe('forced')
    expect(await qemu.exited).toEqual({ code: null, signal: 'SIGKILL' })
    const exit = { ...(await qemu.exited), stderr: qemu.stderr() }
    expect(endingOf({ runState: 'running', meant: true, exit })?.cause).toBe('Killed')
  })
})

describe.runIf(microGuestIsBuilt)('the micro guest', () => {
  async function waitForAgent(agent: GuestAgent): Promise<void> {
    const deadlineMs = systemClock.monotonicMs() + 60_000
    while (systemClock.monotonicMs() < deadlineMs) {
      const up = await agent.ping().then(
        () => true,
        () => false,
      )
      if (up) return
      await sleep(systemClock, 50)
    }
    throw new Error('the guest agent did not come up')
  }

  it('is asked, obeyed, panicked, reset and shut down', async () => {
    const controlled = await start(microGuestArguments)
    const { guest, console, firstByteAtMs, qemu } = controlled
    const agent = createGuestAgent({ socketPath: qemu.agent, syncTimeoutMs: 500 }, components)
    onTestFinished(() => agent.close())
    await expect(agent.ping()).rejects.toMatchObject({ code: 'agentUnavailable' })
    await firstByteAtMs
    await waitForAgent(agent)

    const interfaces = await agent.networkInterfaces()
    expect(interfaces.map(one => one.name)).toEqual(expect.arrayContaining(['lo', 'eth0']))
    expect((await agent.system()).kernel).toMatch(/^\d+\.\d+/)
    expect(await agent.freezeStatus()).toBe('thawed')

    const shell = (script: string, input = '') =>
      agent.execute({ path: '/bin/sh', args: ['-c', script], input: Buffer.from(input) })
    const result = await shell('tr a-z A-Z; echo oops >&2; exit 7', 'hello')
    expect(result).toMatchObject({ code: 7, signal: null, truncated: false })
    expect([result.stdout.toString(), result.stderr.toString()]).toEqual(['HELLO', 'oops\n'])
    expect(await shell('kill -9 $$')).toMatchObject({ code: null, signal: 9 })
    const large = await shell('head -c 100000 /dev/zero')
    expect(large.stdout.equals(Buffer.alloc(100_000))).toBe(true)
    await expect(agent.execute({ path: '/no/such/program' })).rejects.toMatchObject({
      code: 'agentRefused',
    })

    const session = await console.open()
    session.write('echo $((6 * 7))42\n')
    await readUntil(session, '4242')

    await shell('echo c >/proc/sysrq-trigger').catch(() => {})
    await waitForState(guest, 'guest-panicked')
    await guest.perform({ kind: 'reset' })
    expect(guest.status().runState).toBe('running')
    await waitForAgent(agent)
    const init = { ...shutdownInit(controlled), agent }
    expect(await shutDownGuest(init, components)).toBe('graceful')
    expect(await qemu.exited).toEqual({ code: 0, signal: null })
    expect(statSync(qemu.consoleLog).size).toBeGreaterThan(0)
  })
})
