import type { Command } from 'commander'
import { connect } from './command-module.ts'
import { readSettings, settingsFolder } from './context.ts'
import type { Invocation } from './invocation.ts'
import { imageName, type KindName, kindNamed, kindNames, virtualMachineName } from './kinds.ts'
import { listObjects } from './resource-client.ts'

/** What completing needs of the program. */
export interface CompleteInit {
  program: Command
  /** Gives a command its arguments, options and commands of its own. */
  prepare(command: Command): Promise<void>
}

/**
 * What may stand in place of the last word, one candidate each. Nothing is no error: the shell
 * offers files then.
 */
export async function complete(
  words: readonly string[],
  init: CompleteInit,
  invocation: Invocation,
): Promise<string[]> {
  const partial = words.at(-1) ?? ''
  const before = words.slice(0, -1)
  if (before.includes('--')) return []
  const { command, operands, openOption } = await walk(before, init)
  const candidates = await candidatesFor({ command, operands, openOption, partial, invocation })
  return candidates.filter(candidate => candidate.startsWith(partial))
}

interface Walked {
  /** The command that the words have come to. */
  command: Command
  /** Its operands so far. */
  operands: string[]
  /** The long flag of an option that still wants its value. */
  openOption: string | undefined
}

async function walk(words: readonly string[], { program, prepare }: CompleteInit): Promise<Walked> {
  let command = program
  let operands: string[] = []
  let openOption: string | undefined
  for (const word of words) {
    if (openOption !== undefined) {
      openOption = undefined
      continue
    }
    if (word.startsWith('-')) {
      const option = optionsOf(command).find(({ short, long }) => short === word || long === word)
      openOption = option?.required === true ? option.long : undefined
      continue
    }
    const next = command.commands.find(child => child.name() === word)
    if (next === undefined) {
      operands = [...operands, word]
      continue
    }
    if (command === program) await prepare(next)
    command = next
    operands = []
  }
  return { command, operands, openOption }
}

function optionsOf(command: Command): Command['options'][number][] {
  return [...command.options, ...(command.parent === null ? [] : optionsOf(command.parent))]
}

interface Asked extends Walked {
  partial: string
  invocation: Invocation
}

async function candidatesFor(asked: Asked): Promise<string[]> {
  const { command, openOption, partial } = asked
  const options = optionsOf(command)
  if (openOption !== undefined) {
    const option = options.find(({ long }) => long === openOption)
    return option?.argChoices ?? []
  }
  if (partial.startsWith('-')) {
    return options.filter(({ hidden }) => !hidden).flatMap(({ long }) => (long ? [long] : []))
  }
  const children = command.commands.map(child => child.name())
  if (children.length > 0) return children.filter(name => !name.startsWith('_'))
  return operandCandidates(asked)
}

async function operandCandidates({ command, operands, invocation }: Asked): Promise<string[]> {
  const declared = command.registeredArguments
  const argument = declared[operands.length] ?? declared.at(-1)
  const group = command.parent?.name()
  switch (argument?.name()) {
    case 'kind':
      return kindNames.flatMap(kind => [kind.plural, ...kind.shortNames])
    case 'what':
      return ['hosts', 'vms']
    case 'shell':
      return ['bash', 'zsh', 'fish']
    case 'vm':
    case 'vms':
      return namesOf(virtualMachineName, command, invocation)
    case 'image':
      return namesOf(imageName, command, invocation)
    case 'name':
      if (group === 'context') return contextNames(invocation)
      return namesOf(imageName, command, invocation)
    case 'names': {
      const kind = group === 'image' ? imageName : kindNamed(operands[0] ?? '')
      return namesOf(kind, command, invocation)
    }
    default:
      return []
  }
}

async function contextNames({ environment }: Invocation): Promise<string[]> {
  const { contexts } = await readSettings(settingsFolder(environment))
  return contexts.map(({ name }) => name)
}

async function namesOf(
  kind: KindName,
  command: Command,
  invocation: Invocation,
): Promise<string[]> {
  const { client, namespace } = await connect(invocation, command)
  const { items } = await listObjects(client, kind, { namespace })
  return items.map(({ metadata }) => metadata.name)
}
