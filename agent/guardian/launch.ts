import { spawn } from 'node:child_process'
import { closeSync, openSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { type Clock, sleep } from '../../base/clock.ts'
import { failure, isFailure, messageOf } from '../../base/errors.ts'
import { makeFolder } from '../../base/files.ts'
import { onlyStreams } from '../../base/inherited-descriptors.ts'
import type { Limits } from '../../base/limits.ts'
import type { Log } from '../../base/log.ts'
import { connectGuardian } from './client.ts'
import { formatGuardianOptions, type GuardianOptions, guardianPaths } from './options.ts'
import { isAnswered } from './probe.ts'
import type { GuardianHello } from './protocol.ts'
import { lockedExitCode } from './standing.ts'

/** Which guardian there has to be. */
export interface EnsureGuardianInit {
  options: GuardianOptions
  /** Systemd starts and restarts it: then we only wait for it. */
  managed: boolean
  /** How long it may take until it answers. */
  timeoutMs: number
  limits: Limits
}

/** What this needs. */
export interface EnsureGuardianComponents {
  clock: Clock
  log: Log
}

const retryMs = 50
const logTailBytes = 1_000

/**
 * Makes sure that a guardian answers, and says which. When none does, one is started in a session
 * of its own, so that it outlives us. Several may do this at once: the locks of the folders let
 * one guardian in, the others end at once, and all starters meet the one.
 * @throws guardianUnavailable when it is managed and does not answer in time
 * @throws guardianStartFailed with the end of its log
 */
export async function ensureGuardian(
  init: EnsureGuardianInit,
  components: EnsureGuardianComponents,
): Promise<GuardianHello> {
  const { timeoutMs, limits } = init
  const paths = guardianPaths(init.options)
  const reconnect = { firstMs: retryMs, mostMs: retryMs }
  const client = { socketPath: paths.socket, timeoutMs, reconnect, limits }
  const guardian = connectGuardian(client, components)
  try {
    const hello = guardian.hello()
    if (init.managed || (await isAnswered(paths.socket))) return await hello
    return await startUntilAnswered(init.options, hello, components)
  } catch (error) {
    if (init.managed || !isFailure(error, 'guardianUnavailable')) throw error
    throw startFailure(messageOf(error), paths.log)
  } finally {
    guardian.close()
  }
}

/** `hello` has the deadline: it ends this loop. */
async function startUntilAnswered(
  options: GuardianOptions,
  hello: Promise<GuardianHello>,
  { clock, log }: EnsureGuardianComponents,
): Promise<GuardianHello> {
  for (;;) {
    const { child, exited } = startDetached(options)
    log.info({ runFolder: options.runFolder }, 'starting a guardian')
    const outcome = await Promise.race([hello, exited])
    if (typeof outcome === 'object') {
      // Another's guardian answers. Ours may not have come to the locks yet; should that one be
      // stopped now, ours would come to life when nobody wants it any more.
      if (child.pid !== outcome.pid) child.kill('SIGKILL')
      return outcome
    }
    // Somebody has a lock: another that starts, and will answer, or one that is about to end.
    if (outcome !== lockedExitCode) {
      throw startFailure(`exit code ${outcome}`, guardianPaths(options).log)
    }
    const answered = await Promise.race([hello, sleep(clock, retryMs)])
    if (answered !== undefined) return answered
  }
}

/**
 * Starts a guardian that has nothing of ours but its arguments: a session of its own, no terminal,
 * its output in a file.
 * @returns with it, its exit code, when it ends before we do; -1 for a signal
 */
function startDetached(options: GuardianOptions) {
  makeFolder(options.runFolder, 0o755)
  const { log, compiled } = guardianPaths(options)
  const compileCache = process.env['NODE_COMPILE_CACHE'] ?? compiled
  const logFile = openSync(log, 'a', 0o600)
  const program = join(import.meta.dirname, 'main.ts')
  const child = spawn(process.execPath, [program, ...formatGuardianOptions(options)], {
    cwd: '/',
    env: { PATH: process.env['PATH'], NODE_COMPILE_CACHE: compileCache },
    detached: true,
    stdio: onlyStreams('ignore', logFile, logFile),
  })
  closeSync(logFile)
  child.unref()
  const exited = new Promise<number>((resolve, reject) => {
    child.once('error', reject)
    child.once('exit', code => resolve(code ?? -1))
  })
  return { child, exited }
}

function startFailure(detail: string, path: string): Error {
  return failure('guardianStartFailed', { detail: `${detail}; ${readEnd(path)}`, path })
}

function readEnd(path: string): string {
  try {
    return readFileSync(path, 'utf8').trim().slice(-logTailBytes) || 'it said nothing'
  } catch {
    return 'it left no log'
  }
}
