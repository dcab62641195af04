import { failure } from '../../base/errors.ts'
import { type KindName, kindNamed, virtualMachineName } from './kinds.ts'

/** Objects of one kind that a command line names; no names means all of them. */
export interface Target {
  kind: KindName
  names: readonly string[]
}

/**
 * Reads `KIND`, `KIND NAME...` and `KIND/NAME...`; several of the last may be of different kinds.
 * @param command for the advice when it is wrong: `macfleet get`
 * @throws usageWrong
 */
export function readTargets(words: readonly string[], command: string): Target[] {
  const [first, ...rest] = words
  if (first === undefined) {
    throw failure('usageWrong', { detail: 'name a kind, for example vms', command })
  }
  if (!words.some(word => word.includes('/'))) {
    // `get vms,images` is a habit from kubectl.
    const kinds = first.split(',').map(kindNamed)
    if (kinds.length > 1 && rest.length > 0) {
      throw failure('usageWrong', { detail: 'several kinds take no names', command })
    }
    return kinds.map(kind => ({ kind, names: rest }))
  }
  return mergeTargets(words.map(word => readQualified(word, command)))
}

function readQualified(word: string, command: string): Target {
  const [kind, name, ...more] = word.split('/')
  if (!kind || !name || more.length > 0) {
    const detail = `${word} is no KIND/NAME, which either all or none of the words must be`
    throw failure('usageWrong', { detail, command })
  }
  return { kind: kindNamed(kind), names: [name] }
}

function mergeTargets(targets: readonly Target[]): Target[] {
  const merged: Target[] = []
  for (const { kind, names } of targets) {
    const at = merged.findIndex(target => target.kind === kind)
    const before = merged[at]
    if (before === undefined) merged.push({ kind, names })
    else merged[at] = { kind, names: [...before.names, ...names] }
  }
  return merged
}

/**
 * The name of a virtual machine from `NAME` or `vm/NAME`.
 * @throws usageWrong
 */
export function machineNameOf(word: string, command: string): string {
  if (!word.includes('/')) return word
  const [kind, name, ...more] = word.split('/')
  if (name && more.length === 0 && kindNamed(kind ?? '') === virtualMachineName) return name
  throw failure('usageWrong', { detail: `${word} names no virtual machine`, command })
}
