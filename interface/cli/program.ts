import { Command, CommanderError } from 'commander'
import { messageOf } from '../../base/errors.ts'
import { commandList } from './command-list.ts'
import { exitCodeHelp, exitCodeOf, exitCodes } from './exit-code.ts'
import type { Invocation } from './invocation.ts'
import { printable } from './text.ts'

/**
 * Runs one command line.
 * @returns the exit code of a run that failed, which the user was told about; undefined otherwise
 */
export async function runProgram(
  words: readonly string[],
  invocation: Invocation,
): Promise<number | undefined> {
  try {
    await createProgram(invocation).parseAsync(helpLast(words), { from: 'user' })
    return undefined
  } catch (thrown) {
    // Commander has printed what it had to say.
    if (thrown instanceof CommanderError) {
      return thrown.exitCode === 0 ? exitCodes.success : exitCodes.usage
    }
    const code = exitCodeOf(thrown)
    if (code !== exitCodes.interrupted) {
      invocation.stderr.write(`error: ${printable(messageOf(thrown))}\n`)
    }
    return code
  }
}

/** `help run` is `run --help`: commander's own help command knows nothing of what is loaded late. */
function helpLast(words: readonly string[]): readonly string[] {
  return words[0] === 'help' ? [...words.slice(1), '--help'] : words
}

/** The program with every command's name; a command's own module is loaded when it was chosen. */
function createProgram(invocation: Invocation): Command {
  const program = emptyProgram(invocation)
  for (const { name, summary, group } of commandList) {
    program.command(name).summary(summary).description(`${summary}.`).helpGroup(group)
  }
  const prepare = async (command: Command): Promise<void> => {
    const entry = commandList.find(({ name }) => name === command.name())
    if (entry === undefined) return
    const { define } = await entry.load()
    define(command, invocation)
    defaultNegated(command)
  }
  program.hook('preSubcommand', (_, chosen) => prepare(chosen))
  program
    .command('__complete', { hidden: true })
    .argument('[words...]')
    .action(async (words: string[]) => {
      const { complete } = await import('./complete.ts')
      const found = await complete(words, { program, prepare }, invocation)
      invocation.stdout.write(found.map(word => `${word}\n`).join(''))
    })
  return program
}

/** Commander gives `--no-x` its default before it parses; these options came after that. */
function defaultNegated(command: Command): void {
  for (const option of command.options) {
    const name = option.attributeName()
    if (option.negate && command.getOptionValue(name) === undefined) {
      command.setOptionValueWithSource(name, true, 'default')
    }
  }
}

function emptyProgram({ stdout, stderr }: Invocation): Command {
  return new Command('macfleet')
    .description('Runs virtual machines on a fleet of hosts.')
    .usage('[options] COMMAND ...')
    .option('--socket <path>', 'socket of the daemon')
    .option('--context <name>', 'daemon to talk to, one of `macfleet context list`')
    .option('-n, --namespace <name>', 'namespace to work in')
    .helpCommand(false)
    .exitOverride()
    .configureOutput({
      writeOut: text => stdout.write(text),
      writeErr: text => stderr.write(text),
      getOutHelpWidth: () => Math.min(stdout.columns ?? 100, 100),
      getErrHelpWidth: () => Math.min(stderr.columns ?? 100, 100),
      getOutHasColors: () => false,
      getErrHasColors: () => false,
    })
    .configureHelp({ showGlobalOptions: true })
    .showHelpAfterError('Add --help to see what it takes.')
    .addHelpText('afterAll', exitCodeHelp)
    .addHelpText(
      'after',
      `
\`macfleet COMMAND --help\` says more of a command, with examples.
Environment: MACFLEET_SOCKET (socket), MACFLEET_CONFIG_DIR (settings), NO_COLOR (no colours).`,
    )
}
