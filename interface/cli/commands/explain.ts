import type { Command } from 'commander'
import { failure } from '../../../base/errors.ts'
import { createPaint } from '../colour.ts'
import { connect, optionsOf } from '../command-module.ts'
import { explanationLines } from '../explanation-view.ts'
import type { Invocation } from '../invocation.ts'
import { kindNamed, virtualMachineName } from '../kinds.ts'
import { formatValue, outputFormat, print } from '../output.ts'
import { objectPath } from '../resource-client.ts'

/** `macfleet explain`. */
export function define(command: Command, invocation: Invocation): void {
  command
    .argument('<kind>', 'vm')
    .argument('<vm>', 'virtual machine')
    .option('-o, --output <format>', 'table, json or yaml', 'table')
    .addHelpText(
      'after',
      `
Shows each host with its score, or with what keeps the machine from it.

Example:
  macfleet explain vm web`,
    )
    .action(async (kind: string, name: string) => {
      if (kindNamed(kind) !== virtualMachineName) {
        const detail = `only virtual machines are placed on hosts, not ${kind}`
        throw failure('usageWrong', { detail, command: 'macfleet explain' })
      }
      const format = outputFormat(optionsOf<{ output: string }>(command).output)
      const { client, namespace } = await connect(invocation, command)
      const path = `${objectPath(virtualMachineName, namespace, name)}/explain`
      const value = await client.request('GET', path)
      if (format === 'json' || format === 'yaml') {
        await print(invocation, await formatValue(value, format))
        return
      }
      const paint = createPaint(invocation.stdout, invocation.environment)
      await print(invocation, ...(await explanationLines(name, value, paint)))
    })
}
