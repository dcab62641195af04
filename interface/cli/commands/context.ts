import { resolve } from 'node:path'
import type { Command } from 'commander'
import { failure } from '../../../base/errors.ts'
import { createPaint } from '../colour.ts'
import { optionsOf } from '../command-module.ts'
import {
  readSettings,
  resolveEndpoint,
  type Settings,
  settingsFolder,
  withContext,
  writeSettings,
} from '../context.ts'
import type { GlobalOptions, Invocation } from '../invocation.ts'
import { print } from '../output.ts'
import { createTablePrinter } from '../table.ts'

/** `macfleet context`. */
export function define(command: Command, invocation: Invocation): void {
  const folder = settingsFolder(invocation.environment)
  command
    .command('list')
    .description('list the daemons that have a name')
    .action(async () => list(await readSettings(folder), invocation))
  command
    .command('use')
    .argument('<name>', 'one of `macfleet context list`')
    .description('talk to this daemon from now on')
    .action(async (name: string) => {
      const settings = await readSettings(folder)
      const known = settings.contexts.some(context => context.name === name)
      if (!known) throw failure('contextNotFound', { name })
      await writeSettings(folder, { ...settings, current: name })
      await print(invocation, `Commands go to ${name} now.`)
    })
  defineSet(command.command('set'), folder, invocation)
  command
    .command('delete')
    .argument('<name>', 'one of `macfleet context list`')
    .description('forget a name; the daemon is not touched')
    .action(async (name: string) => {
      const { current, contexts } = await readSettings(folder)
      const left = contexts.filter(context => context.name !== name)
      if (left.length === contexts.length) throw failure('contextNotFound', { name })
      const kept = current === name || current === undefined ? {} : { current }
      await writeSettings(folder, { ...kept, contexts: left })
      await print(invocation, `Forgot ${name}.`)
    })
  command
    .command('current')
    .description('say where commands go')
    .action(async () => {
      const options = optionsOf<GlobalOptions>(command)
      const settings = await readSettings(folder)
      const endpoint = resolveEndpoint(options, invocation.environment, settings)
      const name = endpoint.context === undefined ? '' : ` (context ${endpoint.context})`
      await print(invocation, `${endpoint.socket}, namespace ${endpoint.namespace}${name}`)
    })
  command.addHelpText(
    'after',
    `
Examples:
  macfleet context set lab --socket /run/macfleet/macfleet.sock --use
  macfleet context list`,
  )
}

function defineSet(command: Command, folder: string, invocation: Invocation): void {
  command
    .argument('<name>', 'a name of your own')
    .description('name a daemon by its --socket, with the namespace to work in by -n')
    .option('--use', 'and talk to it from now on')
    .addHelpText(
      'after',
      `
Example:
  macfleet context set lab --socket /run/macfleet/macfleet.sock --use`,
    )
    .action(async (name: string) => {
      const options = optionsOf<GlobalOptions & { use?: boolean }>(command)
      if (options.socket === undefined) {
        const detail = 'name its socket with --socket'
        throw failure('usageWrong', { detail, command: 'macfleet context set' })
      }
      const { socket, namespace } = options
      const context = { name, socket: resolve(socket), ...(namespace ? { namespace } : {}) }
      const settings = withContext(await readSettings(folder), context)
      const current = options.use === true ? { current: name } : {}
      await writeSettings(folder, { ...settings, ...current })
      const then = options.use === true ? '; commands go there now' : ''
      await print(invocation, `${name} is ${context.socket}${then}.`)
    })
}

async function list(settings: Settings, invocation: Invocation): Promise<void> {
  if (settings.contexts.length === 0) {
    await print(invocation, 'No contexts. `macfleet context set NAME --socket PATH` makes one.')
    return
  }
  const paint = createPaint(invocation.stdout, invocation.environment)
  const rows = settings.contexts.map(context => [
    context.name === settings.current ? '*' : '',
    context.name,
    context.socket,
    context.namespace ?? 'default',
  ])
  const grid = { headings: ['Current', 'Name', 'Socket', 'Namespace'], rows }
  await print(invocation, ...(await createTablePrinter(paint).lines(grid)))
}
