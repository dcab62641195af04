import type { Command } from 'commander'
import { approximateBytes } from '../../../resources/quantity.ts'
import { createPaint } from '../colour.ts'
import { connect, optionsOf } from '../command-module.ts'
import type { Invocation } from '../invocation.ts'
import { formatValue, note, outputFormat, print } from '../output.ts'
import { createTablePrinter } from '../table.ts'
import { printable } from '../text.ts'
import { memberAt, textOf } from '../untyped.ts'

/** An NFS server that is busy takes its time. */
const listTimeoutMs = 5 * 60_000
/** All of an image is read. */
const checkTimeoutMs = 6 * 3600_000

/** `macfleet image library`. */
export function defineLibrary(command: Command, invocation: Invocation): void {
  command.description('the folder of images that this host can pull from')
  command
    .command('list', { isDefault: true })
    .description('what lies there (also without `list`)')
    .option('-o, --output <format>', 'table, json or yaml', 'table')
    .action(async (_: unknown, list: Command) => {
      const format = outputFormat(optionsOf<{ output: string }>(list).output)
      const { client } = await connect(invocation, list)
      const answer = await client.request('GET', '/images-library', { timeoutMs: listTimeoutMs })
      if (format === 'json' || format === 'yaml') {
        return await print(invocation, await formatValue(answer, format))
      }
      await print(invocation, ...(await libraryLines(answer, invocation)))
      if (memberAt(answer, 'isWhole') === false) {
        await note(invocation, 'There is more than is listed: name it, and it is found')
      }
    })
  command
    .command('check')
    .description('read an image of the library and compare it with its digests')
    .argument('<entry>', 'as the list has it; without its tag for all that lie there')
    .option('-o, --output <format>', 'json or yaml', 'yaml')
    .action(async (name: string, _: unknown, check: Command) => {
      const format = outputFormat(optionsOf<{ output: string }>(check).output)
      const { client } = await connect(invocation, check)
      const query = new URLSearchParams({ name: name.replace(/^library:/, '') })
      const path = `/images-library/check?${query}`
      const answer = await client.request('GET', path, { timeoutMs: checkTimeoutMs })
      await print(invocation, await formatValue(answer, format === 'json' ? 'json' : 'yaml'))
      const wrong = memberAt(answer, 'wrong')
      if (Array.isArray(wrong) && wrong.length > 0) invocation.setExitCode(1)
    })
  command.addHelpText(
    'after',
    `
Examples:
  macfleet image library
  macfleet image library check team/debian:12
  macfleet image pull library:team/debian:12`,
  )
}

async function libraryLines(answer: unknown, invocation: Invocation): Promise<string[]> {
  const entries = memberAt(answer, 'entries')
  if (!Array.isArray(entries) || entries.length === 0) return []
  const rows = entries.map(entry => {
    const size = memberAt(entry, 'sizeBytes')
    const architectures = memberAt(entry, 'architectures')
    return [
      textOf(memberAt(entry, 'name')),
      textOf(memberAt(entry, 'kind')),
      typeof size === 'number' ? approximateBytes(size) : '',
      Array.isArray(architectures) ? architectures.join(',') : '',
      textOf(memberAt(entry, 'detail')),
    ].map(text => printable(text) || '-')
  })
  const headings = ['Name', 'Kind', 'Size', 'Arch', 'Detail']
  const isPlain = rows.every(row => row.at(-1) === '-')
  const cut = (row: string[]) => (isPlain ? row.slice(0, -1) : row)
  const grid = { headings: cut(headings), rows: rows.map(cut) }
  return await createTablePrinter(createPaint(invocation.stdout, invocation.environment)).lines(
    grid,
  )
}
