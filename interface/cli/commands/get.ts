import type { Command } from 'commander'
import { failure } from '../../../base/errors.ts'
import type { Resource } from '../../../resources/kind.ts'
import type { Table } from '../../../resources/table.ts'
import { createPaint } from '../colour.ts'
import { type Connection, connect, optionsOf } from '../command-module.ts'
import { followObjects, followTable } from '../follow.ts'
import type { Invocation } from '../invocation.ts'
import {
  formatValue,
  listObject,
  nameOf,
  note,
  type OutputFormat,
  outputFormat,
  print,
} from '../output.ts'
import { getObject, getTable, listObjects, listTable, type Selection } from '../resource-client.ts'
import { createTablePrinter, type GridOptions, gridOf } from '../table.ts'
import { readTargets, type Target } from '../targets.ts'

interface GetOptions {
  allNamespaces?: boolean
  selector?: string
  fieldSelector?: string
  output: string
  watch?: boolean
  headers: boolean
}

/** `macfleet get`. */
export function define(command: Command, invocation: Invocation): void {
  command
    .argument('<kind>', 'vms, images, hosts, namespaces or events; or KIND/NAME')
    .argument('[names...]', 'objects; all of them when left out')
    .addHelpText(
      'after',
      `
Examples:
  macfleet get vms
  macfleet get vm web -o yaml
  macfleet get vms -A -l team=ios -w
  macfleet get vms -o json | jq -r '.items[].metadata.name'`,
    )
  addGet(command, invocation, [])
}

/** Adds the options and the action of `get`. `prefix` stands before the words that are typed. */
export function addGet(command: Command, invocation: Invocation, prefix: readonly string[]): void {
  command
    .option('-A, --all-namespaces', 'those of every namespace')
    .option('-l, --selector <selector>', 'those with these labels, for example team=ios,tier!=test')
    .option('--field-selector <selector>', 'those with these fields, for example metadata.name=web')
    .option('-o, --output <format>', 'table, wide, json, yaml or name', 'table')
    .option('-w, --watch', 'go on with each change')
    .option('--no-headers', 'leave out the headings')
    .action(async () => {
      const options = optionsOf<GetOptions>(command)
      const format = outputFormat(options.output)
      const targets = readTargets([...prefix, ...command.args], 'macfleet get')
      const connection = await connect(invocation, command)
      await get({ invocation, connection, options, format }, targets)
    })
}

interface Getting {
  invocation: Invocation
  connection: Connection
  options: GetOptions
  format: OutputFormat
}

async function get(getting: Getting, targets: readonly Target[]): Promise<void> {
  const { options, format } = getting
  checkUsage(options, targets)
  if (options.watch === true) return watch(getting, targets)
  if (format === 'table' || format === 'wide') return printTables(getting, targets)
  const objects: Resource[] = []
  for (const target of targets) objects.push(...(await readObjects(getting, target)))
  if (format === 'name') return print(getting.invocation, ...objects.map(nameOf))
  // One object that was named is printed itself, as kubectl does; everything else as a list.
  const [only] = objects
  const named = targets.length === 1 && targets[0]?.names.length === 1
  const value = named && only !== undefined ? only : listObject(objects)
  await print(getting.invocation, await formatValue(value, format))
}

function checkUsage(options: GetOptions, targets: readonly Target[]): void {
  const named = targets.some(target => target.names.length > 0)
  const several = targets.length > 1 || targets.some(target => target.names.length > 1)
  const wrong = (detail: string) => failure('usageWrong', { detail, command: 'macfleet get' })
  if (named && options.selector !== undefined) throw wrong('a selector goes without names')
  if (named && options.allNamespaces === true) throw wrong('a name needs its namespace, not -A')
  if (options.watch === true && several) throw wrong('-w watches one kind, or one object')
}

function selectionOf({ connection, options }: Getting, target: Target): Selection {
  const fields = [options.fieldSelector, ...target.names.map(name => `metadata.name=${name}`)]
  return {
    ...(options.allNamespaces === true ? {} : { namespace: connection.namespace }),
    labelSelector: options.selector,
    fieldSelector: fields.filter(Boolean).join(',') || undefined,
  }
}

async function readObjects(getting: Getting, target: Target): Promise<Resource[]> {
  const { client, namespace } = getting.connection
  const { kind, names } = target
  if (names.length === 0) {
    return (await listObjects(client, kind, selectionOf(getting, target))).items
  }
  return Promise.all(names.map(name => getObject(client, kind, namespace, name)))
}

async function readTable(getting: Getting, target: Target): Promise<Table> {
  const { client, namespace } = getting.connection
  const { kind, names } = target
  if (names.length === 0) return listTable(client, kind, selectionOf(getting, target))
  const tables = await Promise.all(names.map(name => getTable(client, kind, namespace, name)))
  const [first] = tables
  if (first === undefined) throw new Error('a target with names has a first one')
  return { ...first, rows: tables.flatMap(table => table.rows) }
}

function gridOptions({ options, format }: Getting, target: Target): GridOptions {
  const withNamespace = options.allNamespaces === true && target.kind.namespaced
  return { wide: format === 'wide', withNamespace }
}

async function printTables(getting: Getting, targets: readonly Target[]): Promise<void> {
  const { invocation, options } = getting
  const paint = createPaint(invocation.stdout, invocation.environment)
  let empty = true
  for (const target of targets) {
    const table = await readTable(getting, target)
    if (table.rows.length === 0) continue
    if (!empty) await print(invocation, '')
    empty = false
    const printer = createTablePrinter(paint, options.headers)
    const grid = gridOf(table, gridOptions(getting, target))
    await print(invocation, ...(await printer.lines(grid)))
  }
  if (empty) await note(invocation, nothingFound(getting, targets))
}

function nothingFound(getting: Getting, targets: readonly Target[]): string {
  const kinds = targets.map(target => target.kind.plural).join(', ')
  const everywhere =
    getting.options.allNamespaces === true || targets.every(target => !target.kind.namespaced)
  return everywhere ? `No ${kinds}.` : `No ${kinds} in namespace ${getting.connection.namespace}.`
}

async function watch(getting: Getting, targets: readonly Target[]): Promise<void> {
  const { invocation, connection, format, options } = getting
  const [target] = targets
  if (target === undefined) throw new Error('the usage was checked')
  const selection = selectionOf(getting, target)
  const components = {
    client: connection.client,
    clock: invocation.clock,
    signal: invocation.signal,
  }
  if (format === 'table' || format === 'wide') {
    const paint = createPaint(invocation.stdout, invocation.environment)
    const printer = createTablePrinter(paint, options.headers)
    for await (const table of followTable({ kind: target.kind, selection }, components)) {
      const lines = await printer.lines(gridOf(table, gridOptions(getting, target)))
      await print(invocation, ...lines)
    }
    return
  }
  for await (const object of followObjects({ kind: target.kind, selection }, components)) {
    if (format === 'name') await print(invocation, nameOf(object))
    else if (format === 'json') await print(invocation, JSON.stringify(object))
    else await print(invocation, '---', await formatValue(object, format))
  }
}
