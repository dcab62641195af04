import Type from 'typebox'
import { Value } from 'typebox/value'
import type { Limits } from '../../base/limits.ts'
import type { Endpoint } from './endpoint.ts'
import { isTag } from './reference.ts'
import { readWhole } from './transport.ts'
import { lasting } from './trouble.ts'

const pageTags = 1_000
const pageSchema = Type.Object({
  tags: Type.Optional(Type.Union([Type.Array(Type.String()), Type.Null()])),
})

/**
 * All tags of a repository, page by page.
 * @throws Trouble; also when there are more than `registryTags`, or pages without an end
 */
export async function listTags(
  endpoint: Endpoint,
  repository: string,
  limits: Limits,
  signal: AbortSignal,
): Promise<string[]> {
  const found = new Set<string>()
  let path: string | URL | undefined = `/v2/${repository}/tags/list?n=${pageTags}`
  while (path !== undefined) {
    const scope = `repository:${repository}:pull`
    const answer = await endpoint.call({ method: 'GET', path, scope, expect: [200] }, signal)
    const tags = tagsOf(await readWhole(answer.body, limits.registryManifestBytes))
    const before = found.size
    for (const tag of tags.filter(isTag)) found.add(tag)
    if (found.size > limits.registryTags) {
      throw lasting(`the repository has more than ${limits.registryTags} tags`)
    }
    // A page that brings nothing new is the last, whatever it says: so pages come to an end.
    const next = found.size > before ? nextOf(answer.header('link'), endpoint.origin) : undefined
    path = next
  }
  return [...found].sort()
}

function tagsOf(body: Buffer): string[] {
  try {
    const page: unknown = JSON.parse(body.toString('utf8'))
    if (Value.Check(pageSchema, page)) return page.tags ?? []
  } catch {
    // Like every other answer that is no list.
  }
  throw lasting('it does not answer a list of tags')
}

/** RFC 8288: `</v2/team/base/tags/list?last=b&n=1000>; rel="next"`. */
function nextOf(link: string | undefined, origin: string): URL | undefined {
  const target = /^\s*<([^<>]{1,2000})>\s*;\s*rel="?next"?\s*(?:$|[;,])/.exec(link ?? '')?.[1]
  if (target === undefined || !URL.canParse(target, origin)) return undefined
  return new URL(target, origin)
}
