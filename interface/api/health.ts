import type { FastifyInstance } from 'fastify'
import { withTimeout } from '../../base/clock.ts'
import { failure } from '../../base/errors.ts'
import { messageOf } from '../../base/log.ts'
import { type ApiContext, booleanParameter, type Handler } from './context.ts'
import { serve } from './routes.ts'

/** A check that takes longer has failed. */
const checkMs = 5_000

/**
 * `/healthz` and `/livez` (the daemon answers) and `/readyz` (its parts work), as Kubernetes has
 * them: `ok`, or a line per check with `?verbose` and when one fails.
 */
export function healthRoutes(app: FastifyInstance, context: ApiContext): void {
  const alive: Handler = async (_, reply) => reply.type('text/plain').send('ok')
  serve(app, '/healthz', { GET: alive })
  serve(app, '/livez', { GET: alive })
  serve(app, '/readyz', {
    async GET(request, reply) {
      const isVerbose =
        'verbose' in request.query &&
        (request.query['verbose'] === '' || booleanParameter(request.query, 'verbose'))
      const { lines, isReady } = await runChecks(context)
      reply.type('text/plain').code(isReady ? 200 : 503)
      if (isReady && !isVerbose) return reply.send('ok')
      return reply.send(`${lines.join('\n')}\nreadyz check ${isReady ? 'passed' : 'failed'}\n`)
    },
  })
}

async function runChecks(context: ApiContext): Promise<{ lines: string[]; isReady: boolean }> {
  const { readiness, clock } = context
  let isReady = true
  const lines = await Promise.all(
    Object.entries(readiness).map(async ([name, check]) => {
      try {
        const running = Promise.resolve().then(check)
        await withTimeout(clock, checkMs, running, () =>
          failure('timeout', { what: `the check ${name}`, timeoutMs: checkMs }),
        )
        return `[+]${name} ok`
      } catch (error) {
        isReady = false
        return `[-]${name} failed: ${messageOf(error)}`
      }
    }),
  )
  return { lines, isReady }
}
