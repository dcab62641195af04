import type { Command } from 'commander'
import { failure } from '../../../base/errors.ts'
import { connect, optionsOf } from '../command-module.ts'
import { connectionError } from '../connection-error.ts'
import type { Invocation } from '../invocation.ts'
import { virtualMachineName } from '../kinds.ts'
import { write } from '../output.ts'
import { createPlainFilter } from '../plain-filter.ts'
import { objectPath } from '../resource-client.ts'
import { machineNameOf } from '../targets.ts'

interface LogsOptions {
  follow?: boolean
  tail?: string
  raw?: boolean
}

/** `macfleet logs`. */
export function define(command: Command, invocation: Invocation): void {
  command
    .argument('<vm>', 'virtual machine')
    .option('-f, --follow', 'go on with what is written')
    .option('--tail <lines>', 'only so many lines, counted from the end')
    .option('--raw', 'on a terminal too, leave in what moves the cursor or clears the screen')
    .addHelpText(
      'after',
      `
Examples:
  macfleet logs web --tail 50
  macfleet logs web -f | grep -i error`,
    )
    .action(async (vm: string) => {
      const options = optionsOf<LogsOptions>(command)
      if (options.tail !== undefined && !/^\d{1,9}$/.test(options.tail)) {
        const detail = `--tail takes a number of lines, not ${options.tail}`
        throw failure('usageWrong', { detail, command: 'macfleet logs' })
      }
      const name = machineNameOf(vm, 'macfleet logs')
      const { client, namespace } = await connect(invocation, command)
      const path = `${objectPath(virtualMachineName, namespace, name)}/log`
      const follow = options.follow === true ? 'true' : undefined
      const query = { tailLines: options.tail, follow }
      const message = await client.stream('GET', path, { accept: '*/*', query })
      const filter = createPlainFilter()
      const plain = invocation.stdout.isTTY === true && options.raw !== true
      try {
        for await (const chunk of message) {
          await write(invocation.stdout, plain ? filter.push(chunk) : chunk)
        }
      } catch (thrown) {
        if (invocation.signal.aborted) throw invocation.signal.reason
        throw connectionError(thrown, client.socket)
      }
    })
}
