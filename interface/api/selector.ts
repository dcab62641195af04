import { failure } from '../../base/errors.ts'
import type { Kind, Resource } from '../../resources/kind.ts'

/** Says whether an object is meant. */
export type Matcher = (object: Resource) => boolean

/** Longer selectors are refused, and so are those with more requirements than this. */
const mostCharacters = 4096
const mostRequirements = 64

const key = '[A-Za-z0-9](?:[-A-Za-z0-9_./]{0,314}[A-Za-z0-9])?'
const value = '[-A-Za-z0-9_.]{0,63}'
const exists = new RegExp(`^(!?)\\s*(${key})$`)
const equals = new RegExp(`^(${key})\\s*(=|==|!=)\\s*(${value})$`)
const inSet = new RegExp(`^(${key})\\s+(in|notin)\\s*\\(([-A-Za-z0-9_.,\\s]*)\\)$`)

/**
 * A label selector, equality- and set-based (kubernetes.io/docs/concepts/overview/
 * working-with-objects/labels): `a=b,c!=d,e in (f,g),h notin (i),j,!k`; all must hold.
 * @throws badRequest
 */
export function parseLabelSelector(text: string): Matcher {
  const requirements = split(text, 'labelSelector').map(parseRequirement)
  return object => {
    const labels = object.metadata.labels ?? {}
    return requirements.every(holds => holds(labels))
  }
}

type Labels = Readonly<Record<string, string>>

function parseRequirement(text: string): (labels: Labels) => boolean {
  const presence = exists.exec(text)
  if (presence !== null) {
    const [, not, name = ''] = presence
    return labels => Object.hasOwn(labels, name) === (not === '')
  }
  const equality = equals.exec(text)
  if (equality !== null) {
    const [, name = '', operator, wanted = ''] = equality
    // Like notin, != is true of an object that lacks the label.
    return labels => (labelOf(labels, name) === wanted) === (operator !== '!=')
  }
  const set = inSet.exec(text)
  if (set !== null) {
    const [, name = '', operator, list = ''] = set
    const wanted = new Set(list.split(',').map(item => item.trim()))
    return labels => {
      const found = labelOf(labels, name)
      return (found !== undefined && wanted.has(found)) === (operator === 'in')
    }
  }
  throw refusal('labelSelector', text)
}

function labelOf(labels: Labels, name: string): string | undefined {
  return Object.hasOwn(labels, name) ? labels[name] : undefined
}

/** The requirements of a selector: commas part them, but not those within parentheses. */
function split(text: string, parameter: string): string[] {
  if (text.length > mostCharacters) throw refusal(parameter, text)
  const parts = text
    .split(/,(?![^(]*\))/)
    .map(part => part.trim())
    .filter(part => part !== '')
  if (parts.length > mostRequirements) throw refusal(parameter, text)
  return parts
}

const eventFields = [
  'involvedObject.apiVersion',
  'involvedObject.fieldPath',
  'involvedObject.kind',
  'involvedObject.name',
  'involvedObject.namespace',
  'involvedObject.resourceVersion',
  'involvedObject.uid',
  'reason',
  'source',
  'type',
]

/**
 * A field selector (kubernetes.io/docs/concepts/overview/working-with-objects/field-selectors):
 * `metadata.name=a,metadata.namespace!=b`; for events the fields of the object involved too.
 * @throws badRequest, for a field that can't be selected by too
 */
export function parseFieldSelector(kind: Kind, text: string): Matcher {
  const fields = ['metadata.name', 'metadata.namespace']
  if (kind.kind === 'Event') fields.push(...eventFields)
  const requirements = split(text, 'fieldSelector').map(part => {
    const match = /^([A-Za-z.]+)\s*(=|==|!=)\s*([^=!,]*)$/.exec(part)
    const [, field = '', operator, wanted] = match ?? []
    if (!fields.includes(field)) throw refusal('fieldSelector', part)
    const path = field === 'source' ? ['source', 'component'] : field.split('.')
    return (object: Resource) => (textAt(object, path) === wanted) === (operator !== '!=')
  })
  return object => requirements.every(holds => holds(object))
}

function textAt(object: unknown, path: readonly string[]): string {
  const found = path.reduce<unknown>(
    (holder, step) =>
      typeof holder === 'object' && holder !== null
        ? Object.getOwnPropertyDescriptor(holder, step)?.value
        : undefined,
    object,
  )
  return typeof found === 'string' ? found : ''
}

function refusal(parameter: string, text: string) {
  return failure('badRequest', { detail: `${parameter} is not understood: ${text.slice(0, 200)}` })
}
