import { spawn } from 'node:child_process'
import { accessSync, constants } from 'node:fs'
import { join } from 'node:path'
import { assert, failure } from './errors.ts'
import { isErrno } from './files.ts'
import { onlyStreams } from './inherited-descriptors.ts'

/** How a program is run. */
export interface CommandOptions {
  /** After this long the program is killed and `commandTimedOut` thrown. */
  timeoutMs: number
  /** Written to the program's standard input. */
  input?: string | Uint8Array
  /** Kills the program when aborted. */
  signal?: AbortSignal
  workingFolder?: string
  environment?: Record<string, string | undefined>
  /** Bytes of output kept of each stream; 1 MiB by default. */
  outputBytes?: number
  /** Exit codes that are no failure; 0 alone by default. */
  acceptedCodes?: readonly number[]
}

/** What a program left behind. */
export interface CommandResult {
  code: number
  stdout: string
  stderr: string
}

/** Runs programs to their end. The one in service is `runCommand`. */
export type CommandRunner = (
  command: string,
  args: readonly string[],
  options: CommandOptions,
) => Promise<CommandResult>

/**
 * Runs a program without a shell and waits for it.
 * @throws commandMissing, commandTimedOut, or commandFailed with the end of what it printed
 */
export const runCommand: CommandRunner = (command, args, options) =>
  new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      cwd: options.workingFolder,
      env: options.environment ? { ...process.env, ...options.environment } : process.env,
      stdio: onlyStreams('pipe', 'pipe', 'pipe'),
      signal: options.signal,
      killSignal: 'SIGKILL',
    })
    assert(child.stdin && child.stdout && child.stderr, 'a child was given no pipes')
    const stdout = collect(child.stdout, options.outputBytes)
    const stderr = collect(child.stderr, options.outputBytes)
    let timedOut = false
    const timer = setTimeout(() => {
      timedOut = true
      child.kill('SIGKILL')
    }, options.timeoutMs)
    child.on('error', error => {
      clearTimeout(timer)
      reject(isErrno(error, 'ENOENT') ? failure('commandMissing', { command }) : error)
    })
    // A program may end without reading all its input; that is its right, not our error.
    child.stdin.on('error', () => {})
    child.stdin.end(options.input)
    child.on('close', (code, signal) => {
      clearTimeout(timer)
      if (timedOut) {
        return reject(failure('commandTimedOut', { command, timeoutMs: options.timeoutMs }))
      }
      const result = { code: code ?? -1, stdout: stdout(), stderr: stderr() }
      if ((options.acceptedCodes ?? [0]).includes(result.code)) return resolve(result)
      if (result.code === notExecuted && !canExecute(command)) {
        return reject(failure('commandMissing', { command }))
      }
      const outcome = signal ? `killed by ${signal}` : `exit code ${code}`
      const output = (result.stderr || result.stdout).trim().slice(-2000) || 'it printed nothing'
      reject(failure('commandFailed', { command, outcome, output }))
    })
  })

/** The exit code of a child that could not become the program. */
const notExecuted = 127

/**
 * Whether a program can be found. Node hears of a failed exec through a descriptor of its own,
 * which onlyStreams() has to cover; the exit code and this look tell the same.
 */
function canExecute(command: string): boolean {
  const folders = command.includes('/') ? [''] : (process.env['PATH'] ?? '').split(':')
  return folders.some(folder => {
    try {
      accessSync(folder === '' ? command : join(folder, command), constants.X_OK)
      return true
    } catch {
      return false
    }
  })
}

/**
 * Keeps the first `limitBytes` of a stream and drops the rest, so that no program fills our memory.
 */
function collect(stream: NodeJS.ReadableStream, limitBytes = 1024 * 1024): () => string {
  const chunks: Buffer[] = []
  let keptBytes = 0
  stream.on('data', (chunk: Buffer) => {
    if (keptBytes >= limitBytes) return
    chunks.push(chunk.subarray(0, limitBytes - keptBytes))
    keptBytes += chunk.length
  })
  return () => Buffer.concat(chunks).toString('utf8')
}
