import { readFileSync } from 'node:fs'
import { flushCompileCache } from 'node:module'
import { dirname, join } from 'node:path'
import { type BootClock, openBootClock } from '../../base/boot-clock.ts'
import { type Clock, systemClock, type Timer } from '../../base/clock.ts'
import { failure, messageOf } from '../../base/errors.ts'
import { defaultLimits } from '../../base/limits.ts'
import type { Log } from '../../base/log.ts'
import { identify } from '../../base/process-identity.ts'
import { createFencing, type Fencing } from './fencing.ts'
import { rotateLog } from './log-rotation.ts'
import { type GuardianOptions, guardianPaths, parseGuardianOptions } from './options.ts'
import { createPlainLog } from './plain-log.ts'
import { isAnswered } from './probe.ts'
import { createProcesses, type Processes } from './processes.ts'
import type { GuardianHello, GuardianRequest } from './protocol.ts'
import { recover } from './recovery.ts'
import { openRegistry, readBootId } from './registry.ts'
import { type GuardianServer, listen } from './server.ts'
import { holdsLocks, raiseStanding } from './standing.ts'

const rotationMs = 1_000
const ownLogBytes = 1024 * 1024
/** After an answer to `stop`, so long may its client take to read it. */
const farewellMs = 1_000

/** What the guardian is made of, for its life. */
interface GuardianComponents {
  clock: Clock
  bootClock: BootClock
  log: Log
}

/**
 * Is the guardian, from here to the end of the process. Holds its locks already (main.ts).
 * @throws guardianTaken when somebody answers on its socket all the same
 */
async function guard(options: GuardianOptions, components: GuardianComponents): Promise<void> {
  const { clock, log } = components
  const limits = defaultLimits
  const paths = guardianPaths(options)
  process.umask(0o077)
  raiseStanding(log)
  if (await isAnswered(paths.socket)) throw failure('guardianTaken', { folder: options.runFolder })

  const registry = openRegistry(paths.registry)
  const bootId = readBootId()
  const { dataFolder } = options
  const ended = await recover({ dataFolder, bootId, limits }, { ...components, registry })
  let server: GuardianServer | undefined
  const fencing = createFencing({ kill: name => processes.kill(name) }, components)
  const processes = createProcesses(
    {
      ...{ dataFolder, bootId, ended, limits },
      onExit: process => server?.broadcast({ event: 'exit', ...process }),
    },
    { ...components, registry, fencing },
  )
  const rotation = createRotation(processes, paths.log, components)
  const end = (): void => {
    rotation.stop()
    fencing.stop()
    const exit = () => process.exit(0)
    server?.close(exit)
    clock.setTimer(farewellMs, exit)
  }
  const hello = introduce()
  let stopped = false
  const onStopped = (): void => {
    stopped = true
  }
  const handle = createHandler({ hello, processes, fencing, onStarted: rotation.wake, onStopped })
  // The client that asked us to stop has its answer before the connection ends.
  const onAnswered = () => (stopped ? end() : undefined)
  server = await listen({ socketPath: paths.socket, limits, handle, onAnswered }, { log })
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.once(signal, () => void processes.killAll().then(end))
  }
  log.info({ ...hello, runFolder: options.runFolder, dataFolder }, 'the guardian is ready')
}

interface HandlerInit {
  hello: GuardianHello
  processes: Processes
  fencing: Fencing
  /** Something runs now. */
  onStarted(): void
  /** Nothing runs any more, and nothing will. */
  onStopped(): void
}

/** Does what a client asks for. */
function createHandler({ hello, processes, fencing, onStarted, onStopped }: HandlerInit) {
  return async (request: GuardianRequest): Promise<unknown> => {
    switch (request.method) {
      case 'hello':
        return hello
      case 'start': {
        const identity = await processes.start(request.parameters)
        onStarted()
        return identity
      }
      case 'list':
        return processes.list()
      case 'signal': {
        const { name, signal, identity } = request.parameters
        return { delivered: processes.signal(name, signal, identity) }
      }
      case 'forget':
        processes.forget(request.parameters.name)
        return {}
      case 'stop': {
        const count = processes.running()
        if (count > 0 && !request.parameters.force) throw failure('guardianBusy', { count })
        await processes.killAll()
        onStopped()
        return {}
      }
      case 'claim': {
        const { name, claim, ahead } = request.parameters
        processes.claim(name, claim, ahead)
        return {}
      }
      case 'lease':
        await fencing.hold(request.parameters)
        return {}
      case 'endLease':
        fencing.letGo()
        return {}
      case 'expectSilence':
        fencing.expectSilence(request.parameters.forMs)
        return {}
      case 'heartbeat':
        return { lease: fencing.heartbeat(), fenced: processes.fenced() }
    }
  }
}

/** Keeps the logs of running processes, and our own, small; sleeps while nothing runs. */
function createRotation(processes: Processes, ownLog: string, { clock, log }: GuardianComponents) {
  let timer: Timer | undefined
  let stopped = false
  const turn = async (): Promise<void> => {
    for (const one of [...processes.logs(), { path: ownLog, limitBytes: ownLogBytes }]) {
      await rotateLog(one, log).catch(error =>
        log.warn({ path: one.path, error: messageOf(error) }, 'a log could not be rotated'),
      )
    }
    timer = undefined
    if (processes.running() > 0) wake()
  }
  const wake = (): void => {
    if (!stopped) timer ??= clock.setTimer(rotationMs, () => void turn())
  }
  const stop = (): void => {
    stopped = true
    timer?.cancel()
  }
  return { wake, stop }
}

function introduce(): GuardianHello {
  const identity = identify(process.pid)
  if (identity === undefined) throw new Error('/proc is not mounted')
  const file = join(dirname(import.meta.dirname), '..', 'package.json')
  const { version } = JSON.parse(readFileSync(file, 'utf8'))
  return { version: String(version), ...identity }
}

/** Starts the guardian with this process's arguments; ends the process when that fails. */
async function run(): Promise<void> {
  const log = createPlainLog({ name: 'guardian' }, systemClock)
  try {
    const options = parseGuardianOptions(process.argv.slice(2))
    if (!holdsLocks(guardianPaths(options).locks)) throw new Error('start main.ts, not this file')
    await guard(options, { clock: systemClock, bootClock: openBootClock(), log })
    flushCompileCache()
  } catch (error) {
    log.error({ error: messageOf(error) }, 'the guardian can not go on')
    process.exit(1)
  }
}

if (import.meta.main) await run()
