import type { Command } from 'commander'
import { sleep } from '../../../base/clock.ts'
import { failure } from '../../../base/errors.ts'
import type { Resource } from '../../../resources/kind.ts'
import { createPaint } from '../colour.ts'
import { connect, optionsOf } from '../command-module.ts'
import type { Invocation } from '../invocation.ts'
import { hostName, kindNamed, virtualMachineName } from '../kinds.ts'
import { print, write } from '../output.ts'
import { listObjects } from '../resource-client.ts'
import { createTablePrinter } from '../table.ts'
import { hostGrid, machineGrid } from '../top-grid.ts'

interface TopOptions {
  watch?: boolean
  allNamespaces?: boolean
}

const refreshMs = 2_000

/** ECMA-48: cursor to the first column of the first line, then erase to the end of the screen. */
const clearScreen = '\u001b[H\u001b[J'

/** `macfleet top`. */
export function define(command: Command, invocation: Invocation): void {
  command
    .argument('<what>', 'hosts or vms')
    .option('-A, --all-namespaces', 'virtual machines of every namespace')
    .option('-w, --watch', 'show it anew every two seconds')
    .addHelpText(
      'after',
      `
Of hosts it shows what is in use, of virtual machines what they were promised.

Examples:
  macfleet top hosts
  macfleet top vms -w`,
    )
    .action(async (what: string) => {
      const options = optionsOf<TopOptions>(command)
      const kind = kindNamed(what)
      if (kind !== hostName && kind !== virtualMachineName) {
        throw failure('usageWrong', { detail: 'top takes hosts or vms', command: 'macfleet top' })
      }
      const { client, namespace } = await connect(invocation, command)
      const selection = options.allNamespaces === true ? {} : { namespace }
      const grid = kind === hostName ? hostGrid : machineGrid
      const paint = createPaint(invocation.stdout, invocation.environment)
      while (true) {
        const { items } = await listObjects(client, kind, selection)
        const lines = await createTablePrinter(paint).lines(grid(items.sort(byName)))
        if (options.watch === true && invocation.stdout.isTTY === true) {
          await write(invocation.stdout, clearScreen)
        }
        await print(invocation, ...lines)
        if (options.watch !== true) return
        await sleep(invocation.clock, refreshMs, invocation.signal)
        if (invocation.stdout.isTTY !== true) await print(invocation, '')
      }
    })
}

function byName(one: Resource, other: Resource): number {
  return one.metadata.name.localeCompare(other.metadata.name)
}
