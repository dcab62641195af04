import { failure } from '../../base/errors.ts'

/** How an answer is wanted: objects as they are, or as rows of a Table. */
export type Representation = 'object' | 'table'

/** More alternatives than this are not looked at. */
const mostAlternatives = 32

/**
 * The first of the Accept header's alternatives that is served (Kubernetes API concepts, "Receiving
 * resources as Tables"). All of them are answered in JSON.
 * @throws notAcceptable when none is
 */
export function negotiate(accept: string | undefined): Representation {
  if (accept === undefined || accept.trim() === '') return 'object'
  for (const alternative of accept.split(',').slice(0, mostAlternatives)) {
    const [type, ...parameters] = alternative.split(';').map(part => part.trim().toLowerCase())
    if (type !== 'application/json' && type !== 'application/*' && type !== '*/*') continue
    const values = new Map(parameters.map(parameter => splitOnce(parameter)))
    const as = values.get('as')
    if (as === undefined) return 'object'
    if (as === 'table' && values.get('v') === 'v1' && values.get('g') === 'meta.k8s.io') {
      return 'table'
    }
  }
  throw failure('notAcceptable', { accept: accept.slice(0, 200) })
}

function splitOnce(parameter: string): [string, string] {
  const at = parameter.indexOf('=')
  return at < 0 ? [parameter, ''] : [parameter.slice(0, at), parameter.slice(at + 1)]
}
