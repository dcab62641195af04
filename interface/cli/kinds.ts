import { failure } from '../../base/errors.ts'
import { nearest } from '../../resources/nearest.ts'

/** What the command line must know of a kind to name and reach it. */
export interface KindName {
  kind: string
  group: string
  version: string
  plural: string
  singular: string
  shortNames: readonly string[]
  namespaced: boolean
}

const macfleet = { group: 'macfleet.dev', version: 'v1' }
const core = { group: '', version: 'v1' }

/** The kind VirtualMachine. */
export const virtualMachineName: KindName = {
  ...macfleet,
  kind: 'VirtualMachine',
  plural: 'virtualmachines',
  singular: 'virtualmachine',
  shortNames: ['vm', 'vms'],
  namespaced: true,
}

/** The kind Image. */
export const imageName: KindName = {
  ...macfleet,
  kind: 'Image',
  plural: 'images',
  singular: 'image',
  shortNames: ['img'],
  namespaced: true,
}

/** The kind Host. */
export const hostName: KindName = {
  ...macfleet,
  kind: 'Host',
  plural: 'hosts',
  singular: 'host',
  shortNames: [],
  namespaced: false,
}

/** The kind Secret. */
const secretName: KindName = {
  ...core,
  kind: 'Secret',
  plural: 'secrets',
  singular: 'secret',
  shortNames: [],
  namespaced: true,
}

/** The kind Event. */
export const eventName: KindName = {
  ...core,
  kind: 'Event',
  plural: 'events',
  singular: 'event',
  shortNames: ['ev'],
  namespaced: true,
}

/** The kind Namespace. */
export const namespaceName: KindName = {
  ...core,
  kind: 'Namespace',
  plural: 'namespaces',
  singular: 'namespace',
  shortNames: ['ns'],
  namespaced: false,
}

/**
 * Every kind, by name only: resources/kinds.ts has the same with schemas, which take longer to load
 * than `get` may take. kinds.test.ts holds the two together.
 */
export const kindNames: readonly KindName[] = [
  namespaceName,
  eventName,
  secretName,
  virtualMachineName,
  hostName,
  imageName,
]

/** Whether `word` names the kind: its plural, singular or short name, with or without the group. */
function answersTo(kind: KindName, word: string): boolean {
  return (
    kind.plural === word ||
    kind.singular === word ||
    kind.shortNames.includes(word) ||
    `${kind.plural}.${kind.group}` === word ||
    `${kind.singular}.${kind.group}` === word
  )
}

/**
 * The kind that a word on the command line names.
 * @throws usageWrong, with the nearest kind there is
 */
export function kindNamed(word: string): KindName {
  const wanted = word.toLowerCase()
  const found = kindNames.find(kind => answersTo(kind, wanted))
  if (found !== undefined) return found
  const words = kindNames.flatMap(kind => [kind.plural, kind.singular, ...kind.shortNames])
  const meant = nearest(wanted, words)
  const known = `known are ${kindNames.map(kind => kind.plural).join(', ')}`
  const hint = meant === undefined ? known : `did you mean ${meant}?`
  const detail = `there is no kind ${word} (${hint})`
  throw failure('usageWrong', { detail, command: 'macfleet get' })
}

/** The kind of an object by its apiVersion and kind; undefined when it is none of ours. */
export function kindOfObject(apiVersion: string, kind: string): KindName | undefined {
  return kindNames.find(
    name => name.kind === kind && apiVersion === (name.group ? 'macfleet.dev/v1' : 'v1'),
  )
}

/** `virtualmachine.macfleet.dev/web`, as `-o name` and messages name an object. */
export function qualifiedName(kind: KindName, name: string): string {
  return kind.group === '' ? `${kind.singular}/${name}` : `${kind.singular}.${kind.group}/${name}`
}
