import { eventKind } from './event.ts'
import { hostKind } from './host.ts'
import { imageKind } from './image.ts'
import type { Kind, Resource } from './kind.ts'
import { namespaceKind } from './namespace.ts'
import { secretKind } from './secret.ts'
import { virtualMachineKind } from './virtual-machine.ts'

/**
 * Forgets which object type a kind is about, so that kinds can stand in one list. Sound because
 * whoever takes a kind from the list gives its functions only objects that its schema accepted.
 */
function anyKind<Object extends Resource>(kind: Kind<Object>): Kind {
  return kind as unknown as Kind
}

/** Every kind that the API serves. */
export const kinds: readonly Kind[] = [
  anyKind(namespaceKind),
  anyKind(eventKind),
  anyKind(secretKind),
  anyKind(virtualMachineKind),
  anyKind(hostKind),
  anyKind(imageKind),
]

/** The kind that a word on the command line or a path names: kind, plural, singular or short name. */
export function findKind(word: string): Kind | undefined {
  const wanted = word.toLowerCase()
  return kinds.find(
    kind =>
      kind.plural === wanted ||
      kind.singular === wanted ||
      kind.shortNames.includes(wanted) ||
      `${kind.plural}.${kind.group}` === wanted,
  )
}
