import { type Command, Option } from 'commander'
import { approximateBytes } from '../../../resources/quantity.ts'
import { collect, connect, optionsOf } from '../command-module.ts'
import { durationOption } from '../duration-option.ts'
import { awaitCopies, createSourced, pushImage } from '../image-transfer.ts'
import type { Invocation } from '../invocation.ts'
import { imageName, qualifiedName } from '../kinds.ts'
import { readLabels } from '../machine-spec.ts'
import { note, print } from '../output.ts'
import { mergeObject } from '../resource-client.ts'
import { memberAt } from '../untyped.ts'

interface CopiesOptions {
  copies?: string
  hosts?: string[]
  wait: boolean
  timeout: string
}

interface PullOptions extends CopiesOptions {
  name?: string
  secret?: string
  digest?: string
  arch?: string
  machine?: string
  firmware?: string
  pinned?: boolean
  lazy?: boolean
}

/** `macfleet image pull`. */
export function definePull(command: Command, invocation: Invocation): void {
  command
    .description('make an image of one in a registry, the library, or at a URL')
    .argument('<from>', 'HOST[:PORT]/NAME[:TAG], library:NAME, or https://...')
    .option('--name <name>', 'name of the image (default: from where it comes)')
    .option('--secret <name>', 'Secret with the credentials of the registry')
    .option('--digest <digest>', 'sha256:... that the file at a URL must have')
    .addOption(
      new Option('--arch <arch>', 'processor, where there are several').choices([
        'x86_64',
        'aarch64',
      ]),
    )
    .addOption(new Option('--firmware <kind>', 'for a bare disk').choices(['bios', 'uefi']))
    .addOption(new Option('--machine <kind>', 'for a bare disk').choices(['linux', 'macos']))
    .option('--pinned', 'never remove it to make room')
    .option('--lazy', 'fetch it when a machine needs it, not now')
  addCopies(command, 'how many hosts get it (1)')
    .addHelpText(
      'after',
      `
Examples:
  macfleet image pull registry.example.test/team/debian:12
  macfleet image pull registry.example.test/team/sonoma --copies 4 --hosts rack=r1
  macfleet image pull library:debian-12 --lazy`,
    )
    .action(async (from: string) => {
      const options = optionsOf<PullOptions>(command)
      const { name, secret, digest, arch, firmware, machine, pinned, lazy } = options
      const copies = lazy ? undefined : copiesOf(options, command, 1)
      const spec = { arch, firmware, machine, pinned, copies }
      const connection = await connect(invocation, command)
      const more = { ...(secret && { pullSecret: secret }), ...(digest && { digest }) }
      const image = await createSourced({ from, name, spec, ...more }, connection)
      const label = qualifiedName(imageName, image.metadata.name)
      if (lazy || !options.wait) return await print(invocation, `${label} created`)
      const timeoutMs = durationOption(options.timeout, '--timeout', 'macfleet image pull')
      const held = await awaitCopies(image.metadata.name, timeoutMs, connection, invocation)
      await print(invocation, `${label} pulled (${memberAt(held, 'status.digest')})`)
    })
}

/** `macfleet image place`. */
export function definePlace(command: Command, invocation: Invocation): void {
  command.description('keep copies of an image on hosts, ahead of time').argument('<name>', 'image')
  addCopies(command, 'how many hosts; all that match when left out, 0 for none')
    .addHelpText(
      'after',
      `
Examples:
  macfleet image place sonoma --copies 3
  macfleet image place sonoma --hosts rack=r1`,
    )
    .action(async (name: string) => {
      const options = optionsOf<CopiesOptions>(command)
      const connection = await connect(invocation, command)
      const { client, namespace } = connection
      const copies = copiesOf(options, command)
      // null first: what was said before must not stay beside what is said now.
      const merged = { spec: { copies: { count: null, hostSelector: null, ...copies } } }
      await mergeObject(client, imageName, { namespace, name }, merged)
      const label = qualifiedName(imageName, name)
      if (!options.wait || copies.count === 0) return await print(invocation, `${label} placed`)
      const timeoutMs = durationOption(options.timeout, '--timeout', 'macfleet image place')
      const held = await awaitCopies(name, timeoutMs, connection, invocation)
      const hosts = memberAt(held, 'status.copyHosts')
      await print(invocation, `${label} placed on ${Array.isArray(hosts) ? hosts.join(', ') : ''}`)
    })
}

function addCopies(command: Command, copies: string): Command {
  return command
    .option('--copies <number>', copies)
    .option('--hosts <key=value>', 'label of these hosts; repeatable', collect)
    .option('--no-wait', 'do not wait until they have it')
    .option('--timeout <duration>', 'how long to wait', '1h')
}

function copiesOf(options: CopiesOptions, command: Command, usual?: number) {
  const { copies, hosts } = options
  const count = copies === undefined ? usual : Number(copies)
  if (count !== undefined && !(Number.isSafeInteger(count) && count >= 0)) {
    command.error(`--copies takes a number, not ${copies}`)
  }
  return {
    ...(count !== undefined && { count }),
    ...(hosts && { hostSelector: readLabels(hosts) }),
  }
}

/** `macfleet image push`. */
export function definePush(command: Command, invocation: Invocation): void {
  command
    .description('send an image to a registry; what is there already is not sent again')
    .argument('<name>', 'image')
    .argument('<reference>', 'HOST[:PORT]/NAME[:TAG]')
    .option('--secret <name>', 'Secret with the credentials of the registry')
    .addHelpText(
      'after',
      `
Examples:
  macfleet image push debian registry.example.test/team/debian:12`,
    )
    .action(async (name: string, reference: string) => {
      const { secret } = optionsOf<{ secret?: string }>(command)
      const connection = await connect(invocation, command)
      const request = { reference, ...(secret && { pushSecret: secret }) }
      const pushed = await pushImage(name, request, connection, invocation)
      await print(invocation, `${pushed.reference}@${pushed.digest}`)
      await note(
        invocation,
        `${approximateBytes(pushed.sentBytes)} sent, ${pushed.chunks} chunks new`,
      )
    })
}
