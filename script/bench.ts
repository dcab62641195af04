import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { checkout } from '../agent/dev/local-host.ts'
import { type Bench, formatJson, formatTable } from '../test/bench/harness.ts'

function fail(text: string, code: number): never {
  process.stderr.write(`error: ${text}\n`)
  process.exit(code)
}

function readArguments() {
  try {
    const options = { json: { type: 'boolean' }, quick: { type: 'boolean' } } as const
    const { values, positionals } = parseArgs({ options, allowPositionals: true })
    const [name = ''] = positionals
    const path = join(checkout, 'test/bench', `${name}.ts`)
    if (positionals.length !== 1 || !existsSync(path)) fail(`there is no bench "${name}"`, 2)
    return { path, json: values.json ?? false, quick: values.quick ?? false }
  } catch (error) {
    return fail(error instanceof Error ? error.message : String(error), 2)
  }
}

/** Runs a bench; what it started is ended however it ends. */
async function main(): Promise<void> {
  const { path, json, quick } = readArguments()
  const { bench }: { bench: Bench } = await import(path)
  const interrupted = new AbortController()
  // Node holds Ctrl-C back while there is a listener, so that what follows can clean up.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => interrupted.abort(new Error(`ended by ${signal}`)))
  }
  const signal = AbortSignal.any([interrupted.signal, AbortSignal.timeout(bench.timeoutMs)])
  const steps: (() => unknown)[] = []
  const context = {
    signal,
    quick,
    say: (text: string) => process.stderr.write(`bench: ${text}\n`),
    afterwards: (step: () => unknown) => steps.unshift(step),
  }
  try {
    const figures = await bench.run(context)
    process.stdout.write(`${json ? formatJson(figures) : formatTable(figures)}\n`)
  } catch (error) {
    // What was waited for says only that it was aborted; the reason says by what.
    throw signal.aborted ? signal.reason : error
  } finally {
    for (const step of steps) {
      try {
        await step()
      } catch (error) {
        context.say(`something was not cleaned up: ${error}`)
      }
    }
  }
}

try {
  await main()
} catch (error) {
  fail(error instanceof Error ? error.message : String(error), 1)
}
