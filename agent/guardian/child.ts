import { type ChildProcess, spawn } from 'node:child_process'
import { accessSync, constants, readFileSync, statSync } from 'node:fs'
import { access, type FileHandle, open, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { type Clock, preciseTimestamp } from '../../base/clock.ts'
import { assert, failure, messageOf } from '../../base/errors.ts'
import { isErrno } from '../../base/files.ts'
import type { Limits } from '../../base/limits.ts'
import type { Log } from '../../base/log.ts'
import { identifyChild, type ProcessIdentity } from '../../base/process-identity.ts'
import { createLastWords, type LastWords } from './last-words.ts'
import { markName } from './orphans.ts'
import type { ExitRecord, StartParameters } from './protocol.ts'

/** How a child is started. */
export interface ChildInit {
  parameters: StartParameters
  /** Stands in its environment, so that a lost one can be found. */
  mark: string
  limits: Limits
}

/** What a child needs. */
export interface ChildComponents {
  clock: Clock
  log: Log
}

/** One process that runs. */
export interface Child {
  identity: ProcessIdentity
  /** Sends a signal; false when it has ended. */
  kill(signal: NodeJS.Signals): boolean
  /** How it ended. Never rejects. */
  ended: Promise<Omit<ExitRecord, 'reason'>>
}

/**
 * Starts a process, from this very thread: its parent-death signal follows the thread that spawned
 * it (prctl(2), PR_SET_PDEATHSIG), so this must be the guardian's main thread.
 * @throws commandMissing, guardianRefused
 */
export async function startChild(init: ChildInit, components: ChildComponents): Promise<Child> {
  const { parameters, limits } = init
  const workingFolder = parameters.workingFolder ?? '/'
  const path = parameters.environment?.['PATH'] ?? process.env['PATH'] ?? ''
  const [command = '', ...args] = withOomScore(parameters, path)
  const file = await openLastWords(parameters.stderrPath, workingFolder)
  const lastWords = createLastWords(
    { file, limitBytes: limits.lastWordsBytes, tailBytes: limits.lastWordsTailBytes },
    components,
  )
  const child = spawn(command, args, {
    cwd: workingFolder,
    env: { PATH: path, ...parameters.environment, [markName]: init.mark },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const failed = new Promise<Error>(resolve => child.on('error', resolve))
  if (child.pid === undefined) {
    await file.close()
    throw spawnFailure(await failed, parameters.command)
  }
  const ended = waitForEnd(child, lastWords, components.clock)
  for (const stream of outputs(child)) lastWords.attach(stream)
  const identity = identifyChild(child.pid)
  assert(identity !== undefined, 'a child that was not reaped has an identity')
  return { identity, kill: signal => child.kill(signal), ended }
}

/**
 * The command with a standing of its own with the out-of-memory killer: born with the guardian's
 * (-1000: never killed), choom changes it before the program starts. Not afterwards from outside,
 * because the program may set its own.
 */
function withOomScore(
  { command, arguments: args, oomScoreAdjust = 0 }: StartParameters,
  path: string,
) {
  const own = Number(readFileSync('/proc/self/oom_score_adj', 'utf8'))
  if (own === oomScoreAdjust) return [command, ...args]
  return ['choom', '-n', String(oomScoreAdjust), '--', findProgram(command, path), ...args]
}

function findProgram(command: string, path: string): string {
  const candidates = command.includes('/')
    ? [command]
    : path.split(':').map(at => join(at, command))
  const found = candidates.find(isProgram)
  if (found === undefined) throw failure('commandMissing', { command })
  return found
}

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return statSync(path).isFile()
  } catch {
    return false
  }
}

function outputs(child: ChildProcess): Readable[] {
  return [child.stdout, child.stderr].filter(stream => stream !== null)
}

/**
 * A new file in place of the last one: the folder is not ours alone, so nothing there is opened.
 */
async function openLastWords(path: string, workingFolder: string): Promise<FileHandle> {
  const { O_WRONLY, O_CREAT, O_EXCL, O_NOFOLLOW } = constants
  try {
    await access(workingFolder)
    await rm(path, { force: true })
    return await open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600)
  } catch (error) {
    throw failure('guardianRefused', { method: 'start', detail: messageOf(error) })
  }
}

function spawnFailure(error: Error, command: string): Error {
  if (isErrno(error, 'ENOENT')) return failure('commandMissing', { command })
  return failure('guardianRefused', { method: 'start', detail: messageOf(error) })
}

async function waitForEnd(
  child: ChildProcess,
  lastWords: LastWords,
  clock: Clock,
): Promise<Omit<ExitRecord, 'reason'>> {
  const closed = new Promise<void>(resolve => child.on('close', () => resolve()))
  const [code, signal] = await new Promise<[number | null, string | null]>(resolve => {
    child.on('exit', (code, signal) => resolve([code, signal]))
  })
  const endedAt = preciseTimestamp(clock)
  return { code, signal, endedAt, stderrTail: await lastWords.finish(closed) }
}
