import { systemClock } from '../../base/clock.ts'
import { systemRandom } from '../../base/random.ts'
import { exitCodes } from './exit-code.ts'
import type { Invocation } from './invocation.ts'
import { runProgram } from './program.ts'

/** Runs the command line of this process and ends it. */
async function main(): Promise<void> {
  const controller = new AbortController()
  let interruptions = 0
  const interrupt = () => {
    // The first asks the command to end, so that it can clean up; the second does not ask.
    if (++interruptions > 1) process.exit(exitCodes.interrupted)
    controller.abort()
  }
  process.on('SIGINT', interrupt)
  process.on('SIGTERM', interrupt)
  // A reader that has seen enough (`| head`) is no error.
  process.stdout.on('error', error => {
    process.exit('code' in error && error.code === 'EPIPE' ? 0 : exitCodes.failure)
  })
  // Programs that we start have caches of their own.
  delete process.env['NODE_COMPILE_CACHE']
  let exitCode: number = exitCodes.success
  const invocation: Invocation = {
    environment: process.env,
    stdin: process.stdin,
    stdout: process.stdout,
    stderr: process.stderr,
    clock: systemClock,
    random: systemRandom,
    signal: controller.signal,
    setExitCode: code => {
      exitCode = code
    },
  }
  const failed = await runProgram(process.argv.slice(2), invocation)
  // Ends at once instead of waiting for idle connections and for a terminal that may still be read.
  process.stdout.write('', () => process.exit(failed ?? exitCode))
}

await main()
