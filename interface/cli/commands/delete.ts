import type { Command } from 'commander'
import { failure } from '../../../base/errors.ts'
import { type Connection, collect, connect, optionsOf } from '../command-module.ts'
import { durationOption } from '../duration-option.ts'
import type { Invocation } from '../invocation.ts'
import { type KindName, qualifiedName } from '../kinds.ts'
import { readManifests } from '../manifest.ts'
import { print } from '../output.ts'
import { forEach } from '../power.ts'
import { deleteObject, listObjects } from '../resource-client.ts'
import { createStatusLine } from '../status-line.ts'
import { readTargets } from '../targets.ts'
import { waitForObject } from '../wait.ts'

interface DeleteOptions {
  filename?: string[]
  selector?: string
  all?: boolean
  wait: boolean
  timeout: string
  force?: boolean
  ignoreNotFound?: boolean
}

const usage = 'macfleet delete'
const wrong = (detail: string) => failure('usageWrong', { detail, command: usage })

/** `macfleet delete`. */
export function define(command: Command, invocation: Invocation): void {
  command
    .argument('[kind]', 'vms, images, namespaces ...; or KIND/NAME')
    .argument('[names...]', 'objects')
    .option('-f, --filename <file>', 'those that a file, a folder or - names; repeatable', collect)
    .addHelpText(
      'after',
      `
Examples:
  macfleet delete vm web
  macfleet delete vms -l team=ios --no-wait
  macfleet delete -f fleet.yaml`,
    )
  addDelete(command, invocation, [])
}

/** Adds the options and the action of `delete`. `prefix` stands before the words that are typed. */
export function addDelete(
  command: Command,
  invocation: Invocation,
  prefix: readonly string[],
): void {
  command
    .option('-l, --selector <selector>', 'those with these labels')
    .option('--all', 'all of the kind in the namespace')
    .option('--no-wait', 'do not wait until they are gone')
    .option('--timeout <duration>', 'how long to wait for each', '5m')
    .option('--force', 'kill guests at once instead of shutting them down')
    .option('--ignore-not-found', 'what is not there is no error')
    .action(async () => {
      const options = optionsOf<DeleteOptions>(command)
      const timeoutMs = durationOption(options.timeout, '--timeout', usage)
      const connection = await connect(invocation, command)
      const words = [...prefix, ...command.args]
      const doomed = await findDoomed(words, options, connection, invocation)
      await remove({ doomed, options, timeoutMs, connection, invocation })
    })
}

/** An object that is to go. */
interface Doomed {
  kind: KindName
  namespace: string
  name: string
}

async function findDoomed(
  words: readonly string[],
  options: DeleteOptions,
  connection: Connection,
  invocation: Invocation,
): Promise<Doomed[]> {
  const { namespace } = connection
  if (options.filename !== undefined) {
    if (words.length > 0) throw wrong('either -f or a kind, not both')
    const found = await readManifests(options.filename, namespace, invocation.stdin)
    // What was created last may need what was created first, so it goes first.
    return found.map(({ kind, namespace: in_, name }) => ({ kind, namespace: in_, name })).reverse()
  }
  const targets = readTargets(words, usage)
  const doomed: Doomed[] = []
  for (const { kind, names } of targets) {
    const byLabel = options.selector !== undefined || options.all === true
    if (byLabel === names.length > 0) throw wrong('name the objects, or give -l or --all')
    doomed.push(...names.map(name => ({ kind, namespace, name })))
    if (!byLabel) continue
    const selection = { namespace, labelSelector: options.selector }
    const { items } = await listObjects(connection.client, kind, selection)
    doomed.push(...items.map(({ metadata }) => ({ kind, namespace, name: metadata.name })))
  }
  return doomed
}

interface Removal {
  doomed: readonly Doomed[]
  options: DeleteOptions
  timeoutMs: number
  connection: Connection
  invocation: Invocation
}

/** Asks for every deletion first and waits then, so that guests shut down side by side. */
async function remove({ doomed, options, timeoutMs, connection, invocation }: Removal) {
  const named = new Map(doomed.map(one => [qualifiedName(one.kind, one.name), one]))
  const asked: string[] = []
  const ask = async (label: string) => {
    const one = named.get(label)
    if (one === undefined) return
    try {
      await deleteObject(connection.client, one.kind, one, options.force === true ? 0 : undefined)
    } catch (thrown) {
      const missing = thrown instanceof Error && 'reason' in thrown && thrown.reason === 'NotFound'
      if (!missing || options.ignoreNotFound !== true) throw thrown
      return
    }
    asked.push(label)
    if (!options.wait) await print(invocation, `${label} is being deleted`)
  }
  const wait = async (label: string) => {
    const one = named.get(label)
    if (one === undefined) return
    await waitUntilGone(one, timeoutMs, connection, invocation)
    await print(invocation, `${label} deleted`)
  }
  const failed = await settle(() => forEach([...named.keys()], invocation, ask))
  if (options.wait) await forEach(asked, invocation, wait)
  if (failed !== undefined) throw failed
}

/** What an act threw, for later. */
async function settle(act: () => Promise<void>): Promise<unknown> {
  try {
    await act()
    return undefined
  } catch (thrown) {
    return thrown
  }
}

async function waitUntilGone(
  { kind, namespace, name }: Doomed,
  timeoutMs: number,
  connection: Connection,
  { clock, signal, stderr }: Invocation,
): Promise<void> {
  // The first look decides nearly always; a line for it would only flicker.
  const status = stderr.isTTY === true ? createStatusLine({ stream: stderr, clock }) : undefined
  const init = {
    kind,
    namespace,
    name,
    wanted: 'deleted',
    timeoutMs,
    judge: (object: object | undefined) => {
      if (object === undefined) return { is: 'reached' as const }
      status?.show(`${name}: being deleted`)
      return { is: 'waiting' as const, state: 'it is being deleted' }
    },
  }
  try {
    await waitForObject(init, { client: connection.client, clock, signal })
  } finally {
    status?.clear()
  }
}
