import { existsSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { sleep, withTimeout } from '../../base/clock.ts'
import { failure, isFailure, messageOf } from '../../base/errors.ts'
import { agentDevice } from '../../kvm/command-line.ts'
import { attachConsole, type Console } from '../../kvm/console.ts'
import { clearSnapshot, type Snapshot, takeSnapshot } from '../../kvm/disk-snapshot.ts'
import { attachGuest, type Guest, type GuestStatus } from '../../kvm/guest.ts'
import { createGuestAgent, type GuestAgent } from '../../kvm/guest-agent.ts'
import type { PortForward } from '../../kvm/machine.ts'
import { untilSshBanner } from '../../kvm/ssh-probe.ts'
import type { MachineContext } from './machine-context.ts'
import type { GuestRecord } from './record.ts'
import type { CopyRequest, Runtime } from './runtime.ts'
import { guestStateOf } from './situation.ts'
import type { View } from './status.ts'
import { saveRecord, type Tracked } from './tracked.ts'

/** Which guest. */
export interface RuntimeInit {
  tracked: Tracked
  /** Called when something is to be told or done. */
  onChange(): void
}

/** Where inside a guest's boot each time is noted. */
type Timing = keyof NonNullable<GuestRecord['bootTimings']>

const probeMs = { first: 100, most: 2000 }
const agentTimeoutMs = 3000
/** What an earlier daemon left of a copy is cleared as soon as QEMU answers. */
const clearTimeoutMs = 30_000

/** Takes hold of a guest that was just started, or was found running. */
export function openRuntime(init: RuntimeInit, context: MachineContext): Runtime {
  return new GuestRuntime(init, context)
}

class GuestRuntime implements Runtime {
  readonly guest: Guest
  readonly console: Console
  readonly agent: GuestAgent
  readonly #init: RuntimeInit
  readonly #context: MachineContext
  readonly #closing = new AbortController()
  /** Ended and made anew when the guest resets. */
  #probing = new AbortController()
  #address: string | undefined
  #sshAnswered = false
  #agentAnswered = false
  #consoleSpoke = false
  /** Our copy of its disk was broken off, by us or by a daemon that was killed. */
  #mayBeFrozen: boolean
  /** Nothing copies its disk any more that an earlier daemon began. */
  readonly #cleared: Promise<void>

  constructor(init: RuntimeInit, context: MachineContext) {
    this.#init = init
    this.#context = context
    const { folder, record } = init.tracked
    const startedAtMs = record?.startedAtMs
    this.guest = attachGuest({ folder }, context)
    this.console = attachConsole(
      {
        folder,
        ...(startedAtMs !== undefined && { startedAtMs }),
        onFirstByte: () => {
          this.#consoleSpoke = true
          this.#note('firstConsoleByteMs')
        },
      },
      context,
    )
    this.agent = createGuestAgent({ socketPath: folder.agent }, context)
    this.guest.onChange(status => this.#onStatus(status))
    this.guest.onEvent(event => {
      if (event.event === 'RESET') this.#probe()
      else if (event.event === 'VSERPORT_CHANGE') this.#onPort(event.data)
    })
    this.#mayBeFrozen = existsSync(folder.snapshot)
    this.#cleared = this.#mayBeFrozen ? this.#clearSnapshot() : Promise.resolve()
    this.#cleared.catch(() => {})
    this.#probe()
  }

  runState(): View['runState'] {
    const { connected, runState } = this.guest.status()
    if (!connected) return undefined
    const state = guestStateOf(runState)
    if (state === 'unknown') return undefined
    return state === 'blocked' ? 'io-error' : state
  }

  address(): string | undefined {
    return this.#address
  }

  answered(): boolean {
    if (this.#sshForward() !== undefined) return this.#sshAnswered
    return this.#agentAnswered || this.#consoleSpoke
  }

  agentConnected(): boolean {
    return this.#agentAnswered
  }

  async takeSnapshot({ qemuImage, ...request }: CopyRequest): Promise<Snapshot> {
    const { clock } = this.#context
    const late = () =>
      failure('timeout', { what: 'clearing an earlier copy', timeoutMs: clearTimeoutMs })
    await withTimeout(clock, clearTimeoutMs, this.#cleared, late)
    const runs = this.guest.status().runState === 'running'
    const init = {
      ...{ ...request, guest: this.guest, folder: this.#init.tracked.folder },
      agent: runs && this.#agentAnswered ? this.agent : undefined,
      onStillFrozen: () => {
        this.#mayBeFrozen = true
        this.#start(signal => this.#thaw(signal))
      },
    }
    return await takeSnapshot(init, { ...this.#context, qemuImage })
  }

  async dropSnapshot(): Promise<void> {
    // The file is what tells the next daemon that the guest may be frozen.
    if (!this.#mayBeFrozen) await rm(this.#init.tracked.folder.snapshot, { force: true })
  }

  async close(): Promise<void> {
    this.#closing.abort()
    this.#probing.abort()
    this.agent.close()
    await Promise.all([this.guest.close(), this.console.close()])
  }

  #onStatus(status: GuestStatus): void {
    if (status.connected && status.runState === 'running') this.#note('firmwareMs')
    this.#init.onChange()
  }

  /** The program behind the agent's port has gone: it may have died, and may be started again. */
  #onPort({ id, open }: { id: string; open: boolean }): void {
    if (id !== agentDevice || open || !this.#agentAnswered) return
    this.#agentAnswered = false
    this.#init.onChange()
    this.#start(signal => this.#probeAgent(signal))
  }

  /** Notes how long after the request something happened, the first time that it does. */
  #note(timing: Timing): void {
    const { record } = this.#init.tracked
    // Only the daemon that started this run knows what came first; one that adopted it does not.
    if (record?.startedAtMs === undefined || record.bootTimings?.spawnedMs === undefined) return
    if (record.bootTimings[timing] !== undefined) return
    const sinceMs = Math.max(0, this.#context.clock.wallMs() - record.startedAtMs)
    record.bootTimings = { ...record.bootTimings, [timing]: sinceMs }
    this.#init.onChange()
  }

  #sshForward(): PortForward | undefined {
    return this.#init.tracked.record?.forwards.find(
      forward => forward.guestPort === 22 && forward.protocol === 'TCP',
    )
  }

  /** Finds out, from the start, when the guest answers. */
  #probe(): void {
    this.#probing.abort()
    if (this.#closing.signal.aborted) return
    this.#probing = new AbortController()
    this.#sshAnswered = false
    this.#agentAnswered = false
    this.#address = undefined
    this.#start(signal => this.#probeSsh(signal))
    this.#start(signal => this.#probeAgent(signal))
  }

  #start(probe: (signal: AbortSignal) => Promise<void>): void {
    const { signal } = this.#probing
    probe(signal).catch(error => {
      if (signal.aborted) return
      this.#context.log.warn({ error: messageOf(error) }, 'a guest could not be probed')
    })
  }

  async #probeSsh(signal: AbortSignal): Promise<void> {
    const forward = this.#sshForward()
    if (forward === undefined) return
    const { hostAddress: host, hostPort: port } = forward
    await untilSshBanner({ host, port }, this.#context.clock, signal)
    // What was seen of a run that is over is not to be noted of the next.
    signal.throwIfAborted()
    this.#sshAnswered = true
    this.#note('sshMs')
    await this.#keepTimings()
    this.#init.onChange()
  }

  async #probeAgent(signal: AbortSignal): Promise<void> {
    const options = { timeoutMs: agentTimeoutMs, signal }
    await this.#untilTrue(signal, async () => {
      await this.agent.ping(options)
      return true
    })
    if (this.#mayBeFrozen) await this.#thaw(signal)
    this.#agentAnswered = true
    this.#note('agentMs')
    await this.#keepTimings()
    this.#init.onChange()
    await this.#untilTrue(signal, async () => {
      const interfaces = await this.agent.networkInterfaces(options)
      this.#address = interfaces
        .filter(at => at.name !== 'lo')
        .flatMap(at => at.addresses)
        .find(at => at.family === 'ipv4')?.address
      return this.#address !== undefined
    })
    this.#init.onChange()
  }

  #clearSnapshot(): Promise<void> {
    return this.#untilTrue(this.#closing.signal, async () => {
      await clearSnapshot(this.guest)
      return true
    })
  }

  /** An agent that answers and knows no freezing has frozen nothing. */
  async #thaw(signal: AbortSignal): Promise<void> {
    const options = { timeoutMs: agentTimeoutMs, signal }
    await this.#untilTrue(signal, async () => {
      await this.agent.thaw(options).catch(error => {
        if (!isFailure(error, 'agentRefused')) throw error
      })
      return true
    })
    await this.#cleared
    this.#mayBeFrozen = false
    await this.dropSnapshot()
  }

  /**
   * Tries until it is true, less and less often. A guest may take minutes to boot, or never answer.
   */
  async #untilTrue(signal: AbortSignal, attempt: () => Promise<boolean>): Promise<void> {
    for (let waitMs = probeMs.first; ; waitMs = Math.min(waitMs * 1.3, probeMs.most)) {
      signal.throwIfAborted()
      const succeeded = await attempt().catch(() => false)
      // What was seen of a run that is over is not to be noted of the next.
      signal.throwIfAborted()
      if (succeeded) return
      await sleep(this.#context.clock, waitMs, signal)
    }
  }

  async #keepTimings(): Promise<void> {
    await saveRecord(this.#init.tracked)
  }
}
