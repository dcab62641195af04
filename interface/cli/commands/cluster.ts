import { createReadStream, createWriteStream } from 'node:fs'
import { open, readFile, rename, rm, stat } from 'node:fs/promises'
import { pipeline } from 'node:stream/promises'
import type { Command } from 'commander'
import { failure } from '../../../base/errors.ts'
import { createPaint } from '../colour.ts'
import { collect, connect, optionsOf } from '../command-module.ts'
import { durationOption } from '../duration-option.ts'
import { awaitTransition, readFleet } from '../fleet-client.ts'
import { fleetLines } from '../fleet-view.ts'
import type { Invocation } from '../invocation.ts'
import { formatValue, note, outputFormat, print } from '../output.ts'
import { createTablePrinter } from '../table.ts'
import { printable } from '../text.ts'
import { memberAt, textOf } from '../untyped.ts'

interface WaitOptions {
  timeout: string
}

/** A token fits into this; more is no token. */
const tokenBytes = 8192

/** `macfleet cluster`. */
export function define(command: Command, invocation: Invocation): void {
  defineStatus(command.command('status'), invocation)
  defineInit(command.command('init'), invocation)
  defineToken(command.command('token'), invocation)
  defineJoin(command.command('join'), invocation)
  defineLeave(command.command('leave'), invocation)
  defineRotate(command.command('rotate-ca'), invocation)
  defineBackup(command.command('backup'), invocation)
  defineRestore(command.command('restore'), invocation)
  command.addHelpText(
    'after',
    `
Examples:
  macfleet cluster init
  macfleet cluster token create --uses 12 --rack r2
  macfleet cluster join - < token                    (on another host)
  macfleet cluster status`,
  )
}

function defineStatus(command: Command, invocation: Invocation): void {
  command
    .description('hosts, who leads, and how the store is')
    .option('-o, --output <format>', 'table, json or yaml', 'table')
    .action(async () => {
      const format = outputFormat(optionsOf<{ output: string }>(command).output)
      const { client } = await connect(invocation, command)
      const { view, value } = await readFleet(client)
      if (format === 'json' || format === 'yaml') {
        await print(invocation, await formatValue(value, format))
        return
      }
      const paint = createPaint(invocation.stdout, invocation.environment)
      await print(invocation, ...(await fleetLines(view, paint, invocation.clock.wallMs())))
    })
}

function defineInit(command: Command, invocation: Invocation): void {
  command
    .description('make a fleet of this host; its guests run on')
    .option('--timeout <duration>', 'how long to wait', '2m')
    .action(async () => {
      const { timeout } = optionsOf<WaitOptions>(command)
      const timeoutMs = durationOption(timeout, '--timeout', 'macfleet cluster init')
      const { client } = await connect(invocation, command)
      await client.request('POST', '/fleet/init', { body: {} })
      const view = await awaitTransition(client, invocation, timeoutMs)
      await print(invocation, `${view.host} is a fleet now`)
      await note(invocation, 'Let others in: `macfleet cluster token create`')
    })
}

interface TokenOptions {
  ttl: string
  uses: string
  rack?: string
  machineId?: string[]
}

function defineToken(command: Command, invocation: Invocation): void {
  command.description('tokens with which hosts join')
  const create = command.command('create').description('make a token and print it')
  create
    .option('--ttl <duration>', 'how long it can be used', '1h')
    .option('--uses <count>', 'how many hosts it lets in', '1')
    .option('--rack <name>', 'the rack of these hosts')
    .option('--machine-id <id>', 'machine that needs no approval; repeatable', collect)
    .addHelpText(
      'after',
      `
A token with one use lets its host in at once. With more uses each host waits for
\`macfleet host approve\`, unless its /etc/machine-id was listed.`,
    )
    .action(async () => {
      const { ttl, uses, rack, machineId } = optionsOf<TokenOptions>(create)
      const usage = 'macfleet cluster token create'
      if (!/^[1-9]\d{0,5}$/.test(uses)) {
        const detail = `--uses takes a number from 1 on, not ${uses}`
        throw failure('usageWrong', { detail, command: usage })
      }
      const { client } = await connect(invocation, create)
      const made = await client.request('POST', '/fleet/tokens', {
        body: {
          ttlMs: durationOption(ttl, '--ttl', usage),
          uses: Number(uses),
          ...(rack !== undefined && { rack }),
          ...(machineId !== undefined && { machineIds: machineId }),
        },
      })
      await print(invocation, textOf(memberAt(made, 'token')))
    })
  const list = command.command('list').alias('ls').description('list tokens')
  list.action(async () => {
    const { client } = await connect(invocation, list)
    const items = memberAt(await client.request('GET', '/fleet/tokens'), 'items')
    const rows = (Array.isArray(items) ? items : []).map(item =>
      ['id', 'usesLeft', 'rack', 'expiresAt'].map(name =>
        printable(String(memberAt(item, name) ?? '-')),
      ),
    )
    const paint = createPaint(invocation.stdout, invocation.environment)
    const grid = { headings: ['Id', 'Uses left', 'Rack', 'Expires'], rows }
    await print(invocation, ...(await createTablePrinter(paint).lines(grid)))
  })
  const revoke = command.command('revoke').description('end tokens before their time')
  revoke.argument('<ids...>', 'of `macfleet cluster token list`').action(async (ids: string[]) => {
    const { client } = await connect(invocation, revoke)
    for (const id of ids) {
      await client.request('DELETE', `/fleet/tokens/${encodeURIComponent(id)}`)
      await print(invocation, `token ${id} revoked`)
    }
  })
}

function defineJoin(command: Command, invocation: Invocation): void {
  command
    .description('let this host join a fleet; it must have no machines of its own')
    .argument('<token>', 'of `macfleet cluster token create`; - reads it from standard input')
    .option('--timeout <duration>', 'how long to wait, for an approval too', '10m')
    .addHelpText(
      'after',
      `
While it waits, everybody on this machine can see the token in the list of processes. Where there
are others: \`macfleet cluster join -\`.`,
    )
    .action(async (given: string) => {
      const { timeout } = optionsOf<WaitOptions>(command)
      const timeoutMs = durationOption(timeout, '--timeout', 'macfleet cluster join')
      const token = given === '-' ? await readToken(invocation) : given
      const { client } = await connect(invocation, command)
      await client.request('POST', '/fleet/join', { body: { token } })
      const { host, fleetId } = await awaitTransition(client, invocation, timeoutMs)
      await print(invocation, `${host} is a host of fleet ${fleetId}`)
    })
}

async function readToken({ stdin }: Invocation): Promise<string> {
  let text = ''
  for await (const chunk of stdin) {
    text += String(chunk)
    if (text.length > tokenBytes) break
  }
  return text.trim()
}

function defineLeave(command: Command, invocation: Invocation): void {
  command
    .description('make this host a single one again; drain it first')
    .option('--force', 'end and give up its machines; also when the fleet can not be told')
    .option('--timeout <duration>', 'how long to wait', '2m')
    .action(async () => {
      const { timeout, force } = optionsOf<WaitOptions & { force?: boolean }>(command)
      const timeoutMs = durationOption(timeout, '--timeout', 'macfleet cluster leave')
      const { client } = await connect(invocation, command)
      await client.request('POST', '/fleet/leave', { body: { force: force === true } })
      const { host } = await awaitTransition(client, invocation, timeoutMs)
      await print(invocation, `${host} has left the fleet`)
    })
}

function defineRotate(command: Command, invocation: Invocation): void {
  command
    .description('replace the certificate authorities, for example after a voter was lost')
    .action(async () => {
      const { client } = await connect(invocation, command)
      await client.request('POST', '/fleet/rotate-ca', { body: {} })
      await print(invocation, 'the authorities are being replaced; `cluster status` shows how far')
    })
}

function defineBackup(command: Command, invocation: Invocation): void {
  command
    .description('write all that the store holds to a file, sealed to a passphrase')
    .argument('<file>', 'file to write')
    .requiredOption('--passphrase-file <file>', 'file with the passphrase; - is standard input')
    .action(async (file: string) => {
      const { passphraseFile } = optionsOf<{ passphraseFile: string }>(command)
      const passphrase = await readPassphrase(passphraseFile, invocation)
      const { client } = await connect(invocation, command)
      const body = { passphrase }
      const answer = await client.stream('POST', '/fleet/backup', { body, timeoutMs: 120_000 })
      const unfinished = `${file}.part`
      try {
        // Made anew: what somebody else has put there is not written to.
        await rm(unfinished, { force: true })
        await pipeline(answer, createWriteStream(unfinished, { flags: 'wx', mode: 0o600 }))
        const handle = await open(unfinished)
        await handle.sync().finally(() => handle.close())
        await rename(unfinished, file)
      } finally {
        await rm(unfinished, { force: true })
      }
      await print(invocation, `${file}: ${(await stat(file)).size} bytes`)
    })
}

function defineRestore(command: Command, invocation: Invocation): void {
  command
    .description('make this host a fleet of one out of a backup')
    .argument('<file>', 'file that `macfleet cluster backup` wrote')
    .requiredOption('--passphrase-file <file>', 'file with the passphrase; - is standard input')
    .option('--timeout <duration>', 'how long to wait', '5m')
    .addHelpText(
      'after',
      `
Afterwards nothing is placed, started or deleted until every host of the backup has reported, or
was given up by \`macfleet host forget\`. The other hosts come back by
\`macfleet cluster join\` with new tokens, while their guests run on.`,
    )
    .action(async (file: string) => {
      const options = optionsOf<WaitOptions & { passphraseFile: string }>(command)
      const timeoutMs = durationOption(options.timeout, '--timeout', 'macfleet cluster restore')
      const passphrase = await readPassphrase(options.passphraseFile, invocation)
      const { client } = await connect(invocation, command)
      const { size: sizeBytes } = await stat(file)
      await client.upload('/fleet/restore', createReadStream(file), {
        sizeBytes,
        contentType: 'application/octet-stream',
        headers: { 'x-macfleet-passphrase': Buffer.from(passphrase).toString('base64') },
      })
      const view = await awaitTransition(client, invocation, timeoutMs)
      await print(invocation, `${view.host} is a restored fleet; it recovers`)
    })
}

async function readPassphrase(file: string, invocation: Invocation): Promise<string> {
  const text = file === '-' ? await readToken(invocation) : await readFile(file, 'utf8')
  const passphrase = text.replace(/\r?\n$/, '')
  if (passphrase !== '' && passphrase.length <= 1024) return passphrase
  const detail = 'the passphrase must have 1 to 1024 characters'
  throw failure('usageWrong', { detail, command: 'macfleet cluster backup' })
}
