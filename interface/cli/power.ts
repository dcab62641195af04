import type { Command } from 'commander'
import { failure } from '../../base/errors.ts'
import type { Resource } from '../../resources/kind.ts'
import { awaitMachine } from './await-machine.ts'
import { connect, optionsOf } from './command-module.ts'
import { durationOption } from './duration-option.ts'
import type { Invocation } from './invocation.ts'
import { virtualMachineName } from './kinds.ts'
import { note, print } from './output.ts'
import { mergeObject } from './resource-client.ts'
import { machineNameOf } from './targets.ts'
import type { Judge } from './wait.ts'

/** One of the commands that change what machines should be doing. */
export interface PowerAction {
  /** `start`. */
  verb: string
  /** `started`: what is printed of a machine that was told to. */
  done: string
  /** The change (RFC 7396). */
  patch(invocation: Invocation): object
  /** What `--wait` waits for. */
  wanted: string
  /** Makes the judge of one machine; `patched` is how it was right after the change. */
  judgeAfter(patched: Resource): Judge
}

interface PowerOptions {
  wait?: boolean
  timeout: string
}

/** Gives a command the arguments and options that all of these share. */
export function definePower(command: Command, invocation: Invocation, action: PowerAction): void {
  command
    .argument('<vms...>', 'virtual machines')
    .option('--wait', `wait until they are ${action.wanted}`)
    .option('--timeout <duration>', 'how long to wait for each', '5m')
    .addHelpText(
      'after',
      `
Examples:
  macfleet ${action.verb} web
  macfleet ${action.verb} web db --wait --timeout 2m`,
    )
    .action(async (words: string[]) => {
      const usage = `macfleet ${action.verb}`
      const options = optionsOf<PowerOptions>(command)
      const timeoutMs = durationOption(options.timeout, '--timeout', usage)
      const names = words.map(word => machineNameOf(word, usage))
      const connection = await connect(invocation, command)
      const { client, namespace } = connection
      await forEach(names, invocation, async name => {
        const patch = action.patch(invocation)
        const patched = await mergeObject(client, virtualMachineName, { namespace, name }, patch)
        await print(invocation, `virtualmachine.macfleet.dev/${name} ${action.done}`)
        if (options.wait !== true) return
        const judge = action.judgeAfter(patched)
        const init = { name, wanted: action.wanted, timeoutMs, judge }
        await awaitMachine(init, connection, invocation)
        await print(invocation, `${name} is ${action.wanted}`)
      })
    })
}

/**
 * Does something for each name; all are tried, and what went wrong is told at once.
 * @throws the error itself when there is one name, someFailed otherwise
 */
export async function forEach(
  names: readonly string[],
  invocation: Invocation,
  act: (name: string) => Promise<void>,
): Promise<void> {
  let failed = 0
  for (const name of names) {
    try {
      await act(name)
    } catch (thrown) {
      if (names.length === 1 || invocation.signal.aborted) throw thrown
      failed++
      await note(invocation, `error: ${thrown instanceof Error ? thrown.message : thrown}`)
    }
  }
  if (failed > 0) throw failure('someFailed', { failed, total: names.length })
}
