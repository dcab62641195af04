import { failure } from '../../base/errors.ts'
import { type BodyComponents, type IncomingBody, mediaType, readText } from './body.ts'
import { applyJsonPatch } from './json-patch.ts'
import { parseJsonText } from './json-text.ts'
import { applyMergePatch, isRecord } from './merge-patch.ts'
import { unsupportedType } from './status.ts'

/** Changes a value as a client wants it; the value is not touched. */
export type Patch = (target: unknown) => unknown

const mergeType = 'application/merge-patch+json'
const jsonType = 'application/json-patch+json'

/**
 * Reads the patch of a PATCH request.
 * @throws unsupportedMediaType, badRequest, and what reading a body throws
 */
export async function readPatch(body: IncomingBody, components: BodyComponents): Promise<Patch> {
  const type = mediaType(body.headers['content-type'])
  if (type !== mergeType && type !== jsonType) {
    throw unsupportedType(type, `${mergeType} or ${jsonType}`)
  }
  const patch = parseJsonText(await readText(body, components))
  if (type === jsonType) return target => applyJsonPatch(target, patch)
  if (!isRecord(patch)) throw failure('badRequest', { detail: 'a merge patch is an object' })
  return target => applyMergePatch(target, patch)
}
