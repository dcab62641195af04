import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PassThrough } from 'node:stream'
import { systemClock } from '../../base/clock.ts'
import { systemRandom } from '../../base/random.ts'
import { runProgram } from '../../interface/cli/program.ts'
import type { CliResult } from './host.ts'

/** The launcher of this checkout. */
export const launcher = join(import.meta.dirname, '../../bin/macfleet')

/** Runs `macfleet` with settings of its own. */
export interface TestCommandLine {
  /** Where its settings lie. */
  folder: string
  environment: NodeJS.ProcessEnv
  /** Runs it to its end. */
  macfleet(...args: string[]): Promise<CliResult>
  /** As `macfleet`, with `input` on its standard input. */
  feed(input: string | Buffer, ...args: string[]): Promise<CliResult>
  /** Runs it in this process, which is many times faster; what the launcher does is left out. */
  here(...args: string[]): Promise<CliResult>
  remove(): void
}

/**
 * The command line as a user has it who talks to one socket: the real launcher, and no settings of
 * the person who runs the test.
 */
export function createTestCommandLine(socket: string | undefined): TestCommandLine {
  const folder = mkdtempSync(join(tmpdir(), 'macfleet-cli-'))
  const environment = {
    PATH: process.env['PATH'],
    HOME: folder,
    MACFLEET_CONFIG_DIR: join(folder, 'config'),
    TERM: 'xterm-256color',
    // Compiled once for all tests, as a user's second command finds it.
    NODE_COMPILE_CACHE: join(import.meta.dirname, '../../.macfleet/cache/compile'),
    ...(socket === undefined ? {} : { MACFLEET_SOCKET: socket }),
  }
  const feed = (input: string | Buffer, ...args: string[]) => run(args, input, environment)
  return {
    folder,
    environment,
    macfleet: (...args) => feed('', ...args),
    feed,
    here: (...args) => runHere(args, environment),
    remove: () => rmSync(folder, { recursive: true, force: true }),
  }
}

async function runHere(
  args: readonly string[],
  environment: Record<string, string | undefined>,
): Promise<CliResult> {
  const [stdin, stdout, stderr] = [new PassThrough(), new PassThrough(), new PassThrough()]
  stdin.end()
  let code = 0
  const failed = await runProgram(args, {
    environment,
    stdin,
    stdout,
    stderr,
    clock: systemClock,
    random: systemRandom,
    signal: new AbortController().signal,
    setExitCode: given => {
      code = given
    },
  })
  const textOf = (stream: PassThrough) => String(stream.read() ?? '')
  return { code: failed ?? code, stdout: textOf(stdout), stderr: textOf(stderr) }
}

function run(
  args: readonly string[],
  input: string | Buffer,
  environment: NodeJS.ProcessEnv,
): Promise<CliResult> {
  return new Promise((resolve, reject) => {
    const child = spawn(launcher, args, { env: environment, timeout: 20_000 })
    const output = { stdout: '', stderr: '' }
    child.stdout.setEncoding('utf8').on('data', text => {
      output.stdout += text
    })
    child.stderr.setEncoding('utf8').on('data', text => {
      output.stderr += text
    })
    child.stdin.on('error', () => {})
    child.stdin.end(input)
    child.on('error', reject)
    child.on('close', code => resolve({ code, ...output }))
  })
}
