import { readFile } from 'node:fs/promises'
import type { Command } from 'commander'
import { connect, optionsOf } from '../command-module.ts'
import type { Invocation } from '../invocation.ts'
import { formatValue, outputFormat, print } from '../output.ts'
import { isRecord, memberAt, textOf } from '../untyped.ts'

interface VersionOptions {
  client?: boolean
  output: string
}

/** `macfleet version`. */
export function define(command: Command, invocation: Invocation): void {
  command
    .option('--client', 'of this program only')
    .option('-o, --output <format>', 'table, json or yaml', 'table')
    .addHelpText(
      'after',
      `
Examples:
  macfleet version
  macfleet version --client -o json`,
    )
    .action(async () => {
      const options = optionsOf<VersionOptions>(command)
      const format = outputFormat(options.output)
      const machine = format === 'json' || format === 'yaml'
      const clientVersion = await ownVersion()
      // Told before the daemon is asked, which may not be there.
      if (!machine) await print(invocation, `client  ${clientVersion}`)
      const server = options.client === true ? undefined : await serverVersion(invocation, command)
      if (machine) {
        const versions = {
          clientVersion,
          ...(server === undefined ? {} : { serverVersion: server }),
        }
        await print(invocation, await formatValue(versions, format))
      } else if (server !== undefined) await print(invocation, `server  ${server}`)
    })
}

async function ownVersion(): Promise<string> {
  const path = new URL('../../../package.json', import.meta.url)
  return textOf(memberAt(JSON.parse(await readFile(path, 'utf8')), 'version'))
}

async function serverVersion(invocation: Invocation, command: Command): Promise<string> {
  const { client } = await connect(invocation, command)
  const answer = await client.request('GET', '/version')
  // Kubernetes' version.Info: `v1.32.0+macfleet-0.1.0`, the API's version and then the daemon's own.
  const version = isRecord(answer) ? textOf(answer['gitVersion']) : ''
  return /\+macfleet-(.+)$/.exec(version)?.[1] ?? version
}
