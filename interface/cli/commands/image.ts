import { type Command, Option } from 'commander'
import { failure } from '../../../base/errors.ts'
import { connect, optionsOf } from '../command-module.ts'
import { durationOption } from '../duration-option.ts'
import { importImage } from '../image-import.ts'
import { pruneImages } from '../image-prune.ts'
import type { Invocation } from '../invocation.ts'
import { imageName, qualifiedName } from '../kinds.ts'
import { formatValue, outputFormat, print } from '../output.ts'
import { objectPath } from '../resource-client.ts'
import { memberAt } from '../untyped.ts'
import { addDelete } from './delete.ts'
import { addGet } from './get.ts'
import { defineCommit } from './image-commit.ts'
import { defineLibrary } from './image-library.ts'
import { definePlace, definePull, definePush } from './image-transfer.ts'

/** `macfleet image`. */
export function define(command: Command, invocation: Invocation): void {
  defineImport(command.command('import'), invocation)
  defineCommit(command.command('commit'), invocation)
  const list = command.command('list').alias('ls').description('list images')
  addGet(list.argument('[names...]', 'images; all when left out'), invocation, ['images'])
  definePull(command.command('pull'), invocation)
  definePush(command.command('push'), invocation)
  definePlace(command.command('place'), invocation)
  defineInspect(command.command('inspect'), invocation)
  defineVerify(command.command('verify'), invocation)
  defineLibrary(command.command('library'), invocation)
  const remove = command.command('rm').description('remove images; one in use is refused')
  addDelete(remove.argument('[names...]', 'images'), invocation, ['images'])
  definePrune(command.command('prune'), invocation)
  command.addHelpText(
    'after',
    `
Examples:
  macfleet image import debian-12.qcow2 --name debian
  macfleet image list
  macfleet image rm debian`,
  )
}

interface ImportOptions {
  name?: string
  format: string
  firmware?: string
  machine?: string
  arch?: string
  kernel?: string
  initrd?: string
  commandLine?: string
  description?: string
  pinned?: boolean
}

function defineImport(command: Command, invocation: Invocation): void {
  command
    .description('make an image of a disk in a file')
    .argument('<file>', 'raw or qcow2 disk, or - for standard input')
    .option('--name <name>', "name of the image (default: the file's)")
    .addOption(
      new Option('--format <format>', 'format of the file; auto reads its header')
        .choices(['auto', 'raw', 'qcow2'])
        .default('auto'),
    )
    .addOption(new Option('--firmware <kind>', 'firmware it boots with').choices(['bios', 'uefi']))
    .addOption(new Option('--machine <kind>', 'machine it is made for').choices(['linux', 'macos']))
    .addOption(
      new Option('--arch <arch>', 'processor it is made for').choices(['x86_64', 'aarch64']),
    )
    .option('--kernel <file>', 'kernel to boot in place of what is on the disk')
    .option('--initrd <file>', 'initial ram disk of that kernel')
    .option('--command-line <text>', 'command line of that kernel')
    .option('--description <text>', 'what it is')
    .option('--pinned', 'never remove it to make room')
    .addHelpText(
      'after',
      `
Examples:
  macfleet image import debian-12.qcow2 --name debian
  macfleet image import micro.raw --kernel vmlinuz --initrd initrd --command-line console=ttyS0
  zstd -dc disk.raw.zst | macfleet image import - --name build --format raw`,
    )
    .action(async (file: string) => {
      const options = optionsOf<ImportOptions>(command)
      const { name, format, kernel, initrd, commandLine: kernelCommandLine } = options
      if (kernel === undefined && (initrd ?? kernelCommandLine) !== undefined) {
        const detail = '--initrd and --command-line belong to a --kernel'
        throw failure('usageWrong', { detail, command: 'macfleet image import' })
      }
      const { firmware, machine, arch, description, pinned } = options
      const spec = { firmware, machine, arch, description, pinned, kernelCommandLine }
      const connection = await connect(invocation, command)
      const init = { file, name, format, kernel, initrd, spec }
      const image = await importImage(init, connection, invocation)
      const digest = memberAt(image, 'status.digest')
      const label = qualifiedName(imageName, image.metadata.name)
      await print(invocation, `${label} imported${digest === undefined ? '' : ` (${digest})`}`)
    })
}

function defineInspect(command: Command, invocation: Invocation): void {
  command
    .description("what is known of an image's content")
    .argument('<name>', 'image')
    .option('-o, --output <format>', 'json or yaml', 'yaml')
    .action(async (name: string) => {
      const format = outputFormat(optionsOf<{ output: string }>(command).output)
      const { client, namespace } = await connect(invocation, command)
      const answer = await client.request(
        'GET',
        `${objectPath(imageName, namespace, name)}/inspect`,
      )
      await print(invocation, await formatValue(answer, format === 'json' ? 'json' : 'yaml'))
    })
}

/** Reading a disk of hundreds of gigabytes takes its time. */
const verifyTimeoutMs = 6 * 3600_000

function defineVerify(command: Command, invocation: Invocation): void {
  command
    .description('read an image again and compare it with its digests')
    .argument('<name>', 'image')
    .option('--repair', 'fetch what is wrong again, from wherever the image can be had')
    .option('-o, --output <format>', 'json or yaml', 'yaml')
    .action(async (name: string) => {
      const { output, repair } = optionsOf<{ output: string; repair?: boolean }>(command)
      const format = outputFormat(output)
      const { client, namespace } = await connect(invocation, command)
      const query = repair ? '?repair=true' : ''
      const path = `${objectPath(imageName, namespace, name)}/verify${query}`
      const answer = await client.request('POST', path, { timeoutMs: verifyTimeoutMs })
      await print(invocation, await formatValue(answer, format === 'json' ? 'json' : 'yaml'))
      const bad = memberAt(answer, 'bad')
      const isWrong = (part: unknown) => memberAt(part, 'isRepaired') !== true
      if (Array.isArray(bad) && bad.some(isWrong)) invocation.setExitCode(1)
    })
}

function definePrune(command: Command, invocation: Invocation): void {
  command
    .description('remove the images that no machine uses and nobody pinned')
    .option('--older-than <duration>', 'only those not used for so long, for example 7d')
    .option('--dry-run', 'only say which')
    .action(async () => {
      const options = optionsOf<{ olderThan?: string; dryRun?: boolean }>(command)
      const olderThanMs =
        options.olderThan === undefined
          ? 0
          : durationOption(options.olderThan, '--older-than', 'macfleet image prune')
      const connection = await connect(invocation, command)
      await pruneImages({ olderThanMs, dryRun: options.dryRun === true }, connection, invocation)
    })
}
