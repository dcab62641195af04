import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { type Clock, type Timer, withTimeout } from '../base/clock.ts'
import { failure, messageOf } from '../base/errors.ts'
import { onlyStreams } from '../base/inherited-descriptors.ts'
import type { Log } from '../base/log.ts'

/** How systemd is told how we are. */
export interface NotifierInit {
  /** Resolves when the daemon's essential parts work, rejects with what does not. */
  checkHealth(): Promise<void>
  /** What systemd handed over (NOTIFY_SOCKET, WATCHDOG_USEC); this process's own by default. */
  environment?: NodeJS.ProcessEnv
}

/** What telling needs. */
export interface NotifierComponents {
  clock: Clock
  log: Log
}

/** Tells systemd; does nothing where systemd did not start us. */
export interface Notifier {
  /** One line for `systemctl status`. */
  status(text: string): void
  /** Tells that we stop, and ends the watchdog's pings. */
  stop(): Promise<void>
}

/** A ping may come late or be lost, twice, before systemd kills us. */
const pingsPerWatchdog = 3
const stopMs = 2_000
const backlogBytes = 4_096

/**
 * Node has no datagram sockets of the AF_UNIX family, so one shell stays beside us and runs
 * systemd-notify for each line it is given: 0.3 MB, and 3 ms of processor time for a ping. It ends
 * when its input does, so it never outlives us. The unit says NotifyAccess=all for its sake.
 */
const relay = 'while IFS= read -r line; do systemd-notify "$line"; done'

/**
 * Says READY=1, then WATCHDOG=1 as long as the daemon is well (sd_notify(3)): a ping says that the
 * main loop turns (it sent it) and that `checkHealth` resolved in time.
 */
export async function startNotifier(
  init: NotifierInit,
  components: NotifierComponents,
): Promise<Notifier> {
  const environment = init.environment ?? process.env
  if (!environment['NOTIFY_SOCKET']) return { status: () => {}, stop: async () => {} }
  const messages = openRelay(environment, components.log)
  messages.send('READY=1')
  const watchdogMs = readWatchdogMs(environment)
  const watchdog =
    watchdogMs === undefined
      ? undefined
      : startWatchdog(watchdogMs, init, messages.send, components)
  return {
    status: text => messages.send(`STATUS=${oneLine(text)}`),
    async stop() {
      watchdog?.stop()
      messages.send('STOPPING=1')
      await messages.close(components.clock)
    },
  }
}

/** The time between two pings that systemd waits for; undefined when it waits for none from us. */
function readWatchdogMs(environment: NodeJS.ProcessEnv): number | undefined {
  const microseconds = Number(environment['WATCHDOG_USEC'])
  const forUs = [undefined, String(process.pid)].includes(environment['WATCHDOG_PID'])
  return microseconds > 0 && forUs ? microseconds / 1000 : undefined
}

function startWatchdog(
  watchdogMs: number,
  init: NotifierInit,
  send: (line: string) => void,
  { clock, log }: NotifierComponents,
) {
  const intervalMs = watchdogMs / pingsPerWatchdog
  let timer: Timer | undefined
  let stopped = false
  let well = true

  const check = async (): Promise<void> => {
    const late = () => failure('timeout', { what: 'the health check', timeoutMs: intervalMs })
    try {
      await withTimeout(clock, intervalMs, init.checkHealth(), late)
      if (stopped) return
      send('WATCHDOG=1')
      if (!well) send('STATUS=well again')
      well = true
    } catch (error) {
      if (stopped) return
      log.error({ error: messageOf(error) }, 'not well: no ping for the watchdog')
      send(`STATUS=not well: ${oneLine(messageOf(error))}`)
      well = false
    }
    timer = clock.setTimer(intervalMs, () => void check())
  }
  void check()
  return {
    stop() {
      stopped = true
      timer?.cancel()
    },
  }
}

function openRelay(environment: NodeJS.ProcessEnv, log: Log) {
  let shell: ChildProcess | undefined
  const open = (): ChildProcess => {
    const opened = spawn('sh', ['-c', relay], {
      env: environment,
      stdio: onlyStreams('pipe', 'ignore', 'inherit'),
    })
    opened.stdin?.on('error', () => {})
    opened.on('error', error => log.error({ error: error.message }, 'systemd can not be told'))
    opened.on('close', () => {
      if (shell === opened) shell = undefined
    })
    return opened
  }
  return {
    send(line: string): void {
      // A relay that hangs is replaced, before what waits for it grows.
      if ((shell?.stdin?.writableLength ?? 0) > backlogBytes) shell?.kill('SIGKILL')
      if (shell === undefined || shell.killed) shell = open()
      shell.stdin?.write(`${line}\n`)
    },
    async close(clock: Clock): Promise<void> {
      const last = shell
      if (last === undefined) return
      last.stdin?.end()
      const late = () => failure('timeout', { what: 'telling systemd', timeoutMs: stopMs })
      await withTimeout(clock, stopMs, once(last, 'close'), late).catch(() => last.kill('SIGKILL'))
    },
  }
}

function oneLine(text: string): string {
  return text.replaceAll(/\s+/g, ' ').slice(0, 200)
}
