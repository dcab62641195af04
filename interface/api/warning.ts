import type { FastifyInstance, FastifyReply } from 'fastify'
import type { ApiContext } from './context.ts'

/** Sends a sentence beside the answer: RFC 9110 has dropped the header, kubectl prints it. */
export function addWarnings(reply: FastifyReply, sentences: readonly string[]): void {
  const before = reply.getHeader('warning')
  const others = before === undefined ? [] : [before].flat().map(String)
  reply.header('warning', [...others, ...sentences.map(warning)])
}

function warning(sentence: string): string {
  const text = sentence.replaceAll(/[^ -~]/g, '?').replaceAll(/["\\]/g, "'")
  return `299 - "${text.slice(0, 300)}"`
}

/** Says with each object that is read how old it is, while the store can't be reached. */
export function warnOfOldReads(app: FastifyInstance, { staleSince }: ApiContext): void {
  app.addHook('onSend', async (request, reply) => {
    if (request.method !== 'GET' || !/^\/apis?\//.test(request.url)) return
    const since = reply.statusCode === 200 ? staleSince() : undefined
    if (since !== undefined) addWarnings(reply, [oldReadsSentence(since)])
  })
}

function oldReadsSentence(since: string): string {
  const what = `The store can't be reached since ${since}: this is what was known then`
  return `${what}. Guests run on, nothing can be changed; see \`macfleet cluster status\``
}
