import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { basename } from 'node:path'
import { type Command, Option } from 'commander'
import { failure, messageOf } from '../../../base/errors.ts'
import { randomSuffix } from '../../../base/random.ts'
import { awaitMachine } from '../await-machine.ts'
import { formatSpan, timingsText } from '../boot-timings.ts'
import { createPaint } from '../colour.ts'
import { type Connection, cleanupClient, collect, connect, optionsOf } from '../command-module.ts'
import { settingsFolder } from '../context.ts'
import { durationOption } from '../duration-option.ts'
import { ensureIdentity, readPublicKey } from '../identity.ts'
import type { Invocation } from '../invocation.ts'
import { imageName, virtualMachineName } from '../kinds.ts'
import { judgeReady } from '../machine.ts'
import { nameStem, readLabels, readPort, withSshPort } from '../machine-spec.ts'
import { note, print } from '../output.ts'
import {
  createObject,
  deleteObject,
  getObject,
  groupVersion,
  objectPath,
} from '../resource-client.ts'
import { openSsh } from '../ssh-session.ts'
import { StatusError } from '../status-error.ts'

interface RunOptions {
  name?: string
  cpu?: string
  memory?: string
  disk?: string
  port?: string[]
  ssh: boolean
  sshKey?: string[]
  userData?: string
  firmware?: string
  restartPolicy?: string
  onHostLoss?: string
  hostSelector?: string[]
  priority?: string
  ttl?: string
  label?: string[]
  dryRun?: boolean
  rm?: boolean
  wait?: boolean
  timeout: string
  user: string
}

/** `macfleet run`. */
export function define(command: Command, invocation: Invocation): void {
  command
    .argument('<image>', 'name of an image; `macfleet image list` shows them')
    .argument('[command...]', 'after `--`: run this by SSH, and end with its exit code')
    .option('--name <name>', "name of the machine (default: the image's and a suffix)")
    .option('--cpu <cores>', 'cores, for example 2 or 500m')
    .option('--memory <size>', 'memory, for example 512Mi or 2Gi')
    .option('--disk <size>', "size of the disk, at least the image's")
    .option('--port <port>', 'forward GUEST or HOST:GUEST, also with /udp; repeatable', collect)
    .option('--no-ssh', 'do not forward port 22, give no key')
    .option(
      '--ssh-key <file>',
      'public key that may log in; repeatable (default: our own)',
      collect,
    )
    .option('--user-data <file>', 'cloud-init user data')
    .addOption(new Option('--firmware <kind>', 'firmware').choices(['bios', 'uefi']))
    .addOption(
      new Option('--restart-policy <policy>', 'when a guest that ended starts again').choices([
        'Never',
        'OnFailure',
        'Always',
      ]),
    )
    .addOption(
      new Option('--on-host-loss <policy>', 'when its host is lost').choices(['Wait', 'Replace']),
    )
    .option('--host-selector <key=value>', 'label that its host must have; repeatable', collect)
    .option('--priority <number>', 'higher is placed first')
    .option('--ttl <duration>', 'delete it after, for example 2h')
    .option('--label <key=value>', 'label of the machine; repeatable', collect)
    .option('--dry-run', 'only say where it would go')
    .option('--rm', 'log in (or run the command), then delete the machine')
    .option('--wait', 'wait until it can be reached')
    .option('--timeout <duration>', 'how long to wait', '5m')
    .option('--user <name>', 'user to log in as, with --rm or a command', 'root')
    .addHelpText(
      'after',
      `
Examples:
  macfleet run debian --wait
  macfleet run debian --name web --cpu 2 --memory 2Gi --disk 20Gi --port 8080:80
  macfleet run micro --rm -- uname -a`,
    )
    .action(async (image: string, words: string[]) => {
      const options = optionsOf<RunOptions>(command)
      const timeoutMs = durationOption(options.timeout, '--timeout', 'macfleet run')
      const connection = await connect(invocation, command)
      await run({ image, words, options, timeoutMs, connection, invocation })
    })
}

interface Run {
  image: string
  words: readonly string[]
  options: RunOptions
  timeoutMs: number
  connection: Connection
  invocation: Invocation
}

async function run(work: Run): Promise<void> {
  const { options, words, invocation } = work
  const session = options.rm === true || words.length > 0
  if (session && !options.ssh) {
    const detail = '--no-ssh leaves no way to log in, which --rm and a command need'
    throw failure('usageWrong', { detail, command: 'macfleet run' })
  }
  const spec = await specOf(work)
  await checkImage(work)
  if (options.dryRun === true) return wouldGo(work, spec)
  const name = await create(work, spec)
  if (!session) return tell(work, name)
  await note(invocation, `virtualmachine.macfleet.dev/${name} created`)
  try {
    const { user, timeoutMs } = { user: options.user, timeoutMs: work.timeoutMs }
    const code = await openSsh({ name, user, timeoutMs, words }, work.connection, invocation)
    invocation.setExitCode(code)
  } finally {
    if (options.rm === true) await remove(work, name)
  }
}

/** The image is looked for first, so that a slip of the pen does not leave a machine that waits. */
async function checkImage({ image, connection }: Run): Promise<void> {
  const { client, namespace } = connection
  try {
    await getObject(client, imageName, namespace, image)
  } catch (thrown) {
    if (!(thrown instanceof StatusError) || thrown.reason !== 'NotFound') throw thrown
    if (existsSync(image)) {
      const name = nameStem(basename(image).replace(/\.[a-z0-9]+$/i, ''))
      throw failure('imageIsFile', { path: image, name })
    }
    throw failure('imageUnknown', { name: image, namespace })
  }
}

async function specOf({ image, options, invocation }: Run): Promise<Record<string, unknown>> {
  const { cpu, memory, disk, firmware, restartPolicy, onHostLoss, ttl } = options
  const { hostSelector, priority } = options
  const ports = withSshPort((options.port ?? []).map(readPort), options.ssh)
  return {
    image,
    cpu,
    memory,
    disk,
    firmware,
    restartPolicy,
    onHostLoss,
    ttl,
    ...(hostSelector === undefined ? {} : { hostSelector: readLabels(hostSelector) }),
    ...(priority === undefined ? {} : { priority: readPriority(priority) }),
    ...(ports.length === 0 ? {} : { ports }),
    ...(options.ssh ? { sshKeys: await keysOf(options, invocation) } : {}),
    ...(options.userData === undefined ? {} : { userData: await readUserData(options.userData) }),
  }
}

async function keysOf(options: RunOptions, invocation: Invocation): Promise<string[]> {
  if (options.sshKey !== undefined) return Promise.all(options.sshKey.map(readPublicKey))
  return [(await ensureIdentity(settingsFolder(invocation.environment))).publicKey]
}

async function readUserData(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    throw failure('fileUnreadable', { path, detail: messageOf(error) })
  }
}

function readPriority(text: string): number {
  if (/^-?\d{1,7}$/.test(text)) return Number(text)
  const detail = `--priority takes a whole number, not ${text}`
  throw failure('usageWrong', { detail, command: 'macfleet run' })
}

/** Where the machine would go, if it were made now. */
async function wouldGo(work: Run, spec: Record<string, unknown>): Promise<void> {
  const { image, options, connection, invocation } = work
  const name = options.name ?? `${nameStem(image)}-${randomSuffix(invocation.random)}`
  const path = `${objectPath(virtualMachineName, connection.namespace, name)}/explain`
  const value = await connection.client.request('POST', path, { body: { metadata: {}, spec } })
  const { explanationLines } = await import('../explanation-view.ts')
  const paint = createPaint(invocation.stdout, invocation.environment)
  await print(invocation, ...(await explanationLines(name, value, paint)))
}

/** Names that were made up are tried again when taken; one that was chosen is not. */
const nameTries = 3

async function create(work: Run, spec: Record<string, unknown>): Promise<string> {
  const { image, options, connection, invocation } = work
  const labels = readLabels(options.label ?? [])
  for (let tried = 1; ; tried++) {
    const name = options.name ?? `${nameStem(image)}-${randomSuffix(invocation.random)}`
    const metadata = { name, ...(options.label === undefined ? {} : { labels }) }
    const type = { apiVersion: groupVersion(virtualMachineName), kind: virtualMachineName.kind }
    const object = { ...type, metadata, spec }
    try {
      await createObject(connection.client, virtualMachineName, connection.namespace, object)
      return name
    } catch (thrown) {
      const taken = thrown instanceof StatusError && thrown.reason === 'AlreadyExists'
      if (!taken || options.name !== undefined || tried >= nameTries) throw thrown
    }
  }
}

async function tell(work: Run, name: string): Promise<void> {
  const { options, connection, invocation, timeoutMs } = work
  await print(invocation, `virtualmachine.macfleet.dev/${name} created`)
  if (options.wait === true) {
    const init = { name, wanted: 'Ready', timeoutMs, judge: judgeReady }
    const startMs = invocation.clock.monotonicMs()
    const machine = await awaitMachine(init, connection, invocation)
    const took = formatSpan(invocation.clock.monotonicMs() - startMs)
    const timings = timingsText(machine)
    await print(invocation, `${name} is ready after ${took}${timings && ` (${timings})`}`)
  }
  const flag = connection.namespace === 'default' ? '' : ` -n ${connection.namespace}`
  const hints: [string, string][] = [
    ...(options.ssh ? [[`ssh ${name}`, 'log in'] satisfies [string, string]] : []),
    [`console ${name}`, 'serial console, Ctrl-] leaves it'],
    [`get vm ${name}`, 'how it is'],
    [`delete vm ${name}`, 'remove it'],
  ]
  const columns = Math.max(...hints.map(([words]) => words.length)) + flag.length
  const lines = hints.map(
    ([words, meaning]) => `  macfleet ${(words + flag).padEnd(columns)}   ${meaning}`,
  )
  await print(invocation, '', ...lines)
}

/** Deletes the machine even when the user pressed Ctrl-C, which ended the first connection. */
async function remove({ connection, invocation }: Run, name: string): Promise<void> {
  const client = cleanupClient(invocation, connection)
  const at = { namespace: connection.namespace, name }
  await deleteObject(client, virtualMachineName, at)
  await note(invocation, `virtualmachine.macfleet.dev/${name} deleted`)
}
