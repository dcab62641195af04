import type { ArchiveEntry, EntryType } from './tar-entries.ts'

/** What an entry of a layer means for the folder /disk of the image. */
export type Meaning =
  | { kind: 'nothing' }
  /** It hides what layers below have in /disk: this name, or all. */
  | { kind: 'hides'; name: string | undefined }
  /** It is in /disk itself. */
  | { kind: 'member'; name: string; type: EntryType }
  /** No honest tool writes such a name. */
  | { kind: 'trick' }

const folder = 'disk'
const hiddenPrefix = '.wh.'
const allHidden = '.wh..wh..opq'

/**
 * Says what an entry means. Nothing is ever written under an entry's name, so a name can do no more
 * than be taken for another: `.` and double slashes are passed over, `..` is a trick.
 */
export function meaningOf({ name, type }: Pick<ArchiveEntry, 'name' | 'type'>): Meaning {
  const parts = name.split('/').filter(part => part !== '' && part !== '.')
  if (parts.includes('..') || name.includes('\0')) return { kind: 'trick' }
  const [first, second] = parts
  if (parts.length === 1) {
    const hidesFolder = first === allHidden || first === `${hiddenPrefix}${folder}`
    // A file or a link in the folder's place hides what layers below have there.
    const replacesFolder = first === folder && type !== 'directory'
    return hidesFolder || replacesFolder ? { kind: 'hides', name: undefined } : { kind: 'nothing' }
  }
  if (parts.length !== 2 || first !== folder || second === undefined) return { kind: 'nothing' }
  if (second === allHidden) return { kind: 'hides', name: undefined }
  if (second.startsWith(hiddenPrefix)) {
    return { kind: 'hides', name: second.slice(hiddenPrefix.length) }
  }
  return { kind: 'member', name: second, type }
}

/** Whether a file of this name is a disk. */
export function isDiskName(name: string): boolean {
  return /.\.(qcow2|raw|img)$/.test(name)
}
