import type { Command } from 'commander'
import { connect, optionsOf } from '../command-module.ts'
import { commitMachine } from '../image-commit.ts'
import type { Invocation } from '../invocation.ts'
import { imageName, qualifiedName } from '../kinds.ts'
import { print } from '../output.ts'
import { memberAt } from '../untyped.ts'

/** `macfleet image commit`. */
export function defineCommit(command: Command, invocation: Invocation): void {
  command
    .description('make an image of a machine with what it wrote; it goes on meanwhile')
    .argument('<vm>', 'machine')
    .argument('<name>', 'name of the new image')
    .option('--description <text>', 'what it is')
    .option('--pinned', 'never remove it to make room')
    .addHelpText(
      'after',
      `
File systems are frozen for a moment by the guest agent; without one the image is as after a loss
of power. A machine that is stopped has nothing to freeze.

Examples:
  macfleet image commit web web-with-tools
  macfleet image commit build-7 xcode-16 --description 'with Xcode 16' --pinned`,
    )
    .action(async (machine: string, name: string) => {
      const { description, pinned } = optionsOf<{ description?: string; pinned?: boolean }>(command)
      const connection = await connect(invocation, command)
      const image = await commitMachine(
        { machine, name, description, pinned },
        connection,
        invocation,
      )
      const label = qualifiedName(imageName, name)
      await print(invocation, `${label} committed (${memberAt(image, 'status.digest')})`)
    })
}
