import type { Clock } from '../base/clock.ts'
import { isFailure } from '../base/errors.ts'
import { type Log, messageOf } from '../base/log.ts'
import type { Guest, GuestStatus } from './guest.ts'
import type { GuestAgent } from './guest-agent.ts'

/** Whom to shut down, and how long to be patient. */
export interface ShutdownInit {
  guest: Guest
  /** Asked beside the power button; a guest may heed one and not the other. */
  agent?: GuestAgent
  /** From the first request to the moment when the plug is pulled. */
  deadlineMs: number
  /**
   * When the power button is pressed again, 5000 by default: a guest that is booting does not hear
   * the first time, one that is shutting down does not mind the second.
   */
  repeatAfterMs?: number
  /** How long QEMU may take to end once it was told to, 5000 by default; after that, `kill`. */
  quitTimeoutMs?: number
  /** SIGKILL, or whatever ends a QEMU that hears nothing. Called at most once. */
  kill(): Promise<void>
  /**
   * Resolves when the QEMU process has ended, for whatever reason: there is nothing to wait for
   * then.
   */
  exited?: Promise<unknown>
  /** Stops waiting; the guest stays as it is then. */
  signal?: AbortSignal
}

/** What a shutdown needs. */
export interface ShutdownComponents {
  clock: Clock
  log: Log
}

/** `graceful`: the guest powered itself off. `forced`: its plug was pulled. */
export type ShutdownOutcome = 'graceful' | 'forced'

/**
 * Ends a guest: asks it to power off, waits, and ends its QEMU in any case. Resolves when QEMU has
 * let go of its control socket, or `kill` has resolved. A paused guest is resumed first, since it
 * could not hear.
 * @throws the signal's reason
 */
export async function shutDownGuest(
  init: ShutdownInit,
  components: ShutdownComponents,
): Promise<ShutdownOutcome> {
  init.signal?.throwIfAborted()
  const { guest } = init
  if (!isOff(guest.status())) await askUntilOff(init, components)
  init.signal?.throwIfAborted()
  const outcome = guest.status().runState === 'shutdown' ? 'graceful' : 'forced'
  await endQemu(init, components)
  return outcome
}

/**
 * Whether a guest has come to an end by itself. One that we can't reach now may well be running.
 */
function isOff(status: GuestStatus): boolean {
  const { runState } = status
  return runState === 'shutdown' || runState === 'guest-panicked' || runState === 'internal-error'
}

/** Whether a guest can't hear, yet could go on: suspended by us, or by a disk that was full. */
function isHeld({ runState }: GuestStatus): boolean {
  return runState === 'paused' || runState === 'io-error'
}

async function askUntilOff(init: ShutdownInit, components: ShutdownComponents): Promise<void> {
  const { guest, signal } = init
  const { clock, log } = components
  const deadlineAtMs = clock.monotonicMs() + init.deadlineMs
  if (isHeld(guest.status())) await tryTo(log, guest.perform({ kind: 'resume' }))
  // The agent's answer is not waited for: a guest without one would use up the deadline.
  const asking = new AbortController()
  const agentSignal = AbortSignal.any([asking.signal, ...(signal ? [signal] : [])])
  if (init.agent !== undefined) {
    void tryTo(log, init.agent.shutdown('powerdown', { signal: agentSignal }))
  }
  try {
    await tryTo(log, guest.perform({ kind: 'powerdown' }))
    const firstMs = Math.min(init.repeatAfterMs ?? 5000, init.deadlineMs)
    if (await isOffWithin(firstMs, init)) return
    await tryTo(log, guest.perform({ kind: 'powerdown' }))
    await isOffWithin(Math.max(0, deadlineAtMs - clock.monotonicMs()), init)
  } finally {
    asking.abort()
  }
}

async function isOffWithin(timeoutMs: number, init: ShutdownInit): Promise<boolean> {
  const what = 'the guest to power off'
  const signal = init.signal ? { signal: init.signal } : {}
  try {
    const off = init.guest.waitFor(isOff, { what, timeoutMs, ...signal })
    await (init.exited === undefined ? off : Promise.race([off, init.exited]))
    return true
  } catch (error) {
    if (isFailure(error, 'timeout')) return false
    throw error
  }
}

async function endQemu(init: ShutdownInit, components: ShutdownComponents): Promise<void> {
  const { guest } = init
  const timeoutMs = init.quitTimeoutMs ?? 5000
  try {
    const gone = guest.waitFor(status => !status.connected, { what: "QEMU's end", timeoutMs })
    gone.catch(() => {})
    const quit = guest.perform({ kind: 'quit' }).then(() => gone)
    await (init.exited === undefined ? quit : Promise.race([quit, init.exited]))
  } catch (error) {
    components.log.debug({ error: messageOf(error) }, 'QEMU did not quit and is killed')
    await init.kill()
  }
}

/** A guest that refuses one way of asking may heed another; the deadline decides in the end. */
async function tryTo(log: Log, asking: Promise<void>): Promise<void> {
  try {
    await asking
  } catch (error) {
    log.debug({ error: messageOf(error) }, 'the guest was asked to shut down in vain')
  }
}
