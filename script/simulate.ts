import { parseArgs } from 'node:util'
import { costReport } from '../test/simulation/cost.ts'
import { simulate } from '../test/simulation/simulate.ts'
import { tellStory } from '../test/simulation/story.ts'

function fail(text: string): never {
  process.stderr.write(`error: ${text}\n`)
  process.exit(2)
}

function readArguments() {
  try {
    const { values } = parseArgs({
      options: {
        seeds: { type: 'string', default: '100' },
        hosts: { type: 'string', default: '5' },
        seed: { type: 'string', default: '1' },
        seconds: { type: 'string', default: '90' },
        trace: { type: 'boolean', default: false },
        cost: { type: 'boolean', default: false },
      },
    })
    const number = (name: 'seeds' | 'hosts' | 'seed' | 'seconds'): number => {
      const value = Number(values[name])
      if (!Number.isInteger(value) || value < 1) fail(`--${name} takes a number from 1 on`)
      return value
    }
    return {
      ...{ seeds: number('seeds'), hosts: number('hosts'), first: number('seed') },
      ...{ forMs: number('seconds') * 1_000, trace: values.trace, cost: values.cost },
    }
  } catch (error) {
    return fail(error instanceof Error ? error.message : String(error))
  }
}

/** Runs seed after seed. @returns the exit code */
async function run(): Promise<number> {
  const { seeds, hosts, first, forMs, trace, cost } = readArguments()
  if (cost) {
    process.stdout.write(`${await costReport()}\n`)
    return 0
  }
  const began = performance.now()
  const total = { virtualMs: 0, faults: 0, acknowledged: 0 }
  for (let seed = first; seed < first + seeds; seed++) {
    const result = await simulate({ seed, hosts, forMs })
    total.virtualMs += result.virtualMs
    total.faults += result.faults
    total.acknowledged += result.acknowledged
    const seconds = ((performance.now() - began) / 1_000).toFixed(0)
    const hours = (total.virtualMs / 3_600_000).toFixed(1)
    const end = process.stderr.isTTY ? '\r' : '\n'
    const counts = `${total.faults} faults, ${total.acknowledged} machines`
    process.stderr.write(
      `seed ${seed}: ${hours} h of ${hosts} hosts, ${counts}, ${seconds} s${end}`,
    )
    if (trace) process.stdout.write(`${tellStory(result, { everything: true })}\n`)
    else if (result.violation !== undefined) process.stdout.write(`\n${tellStory(result)}\n`)
    if (result.violation !== undefined) return 1
  }
  process.stdout.write(`\n${seeds} seeds with ${hosts} hosts: every promise was kept\n`)
  return 0
}

process.exitCode = await run()
