import type { FastifyInstance } from 'fastify'
import { Counter, Gauge, Histogram } from '../../base/metrics.ts'
import type { ApiContext } from './context.ts'
import { serve } from './routes.ts'

/** Requests that stay open by design: their duration says nothing. */
const longRoutes = /\/(console|exec|log|content|kernel|initrd|verify|check)$/

/** Bounds of the duration histogram, in seconds. */
const buckets = [0.001, 0.005, 0.02, 0.1, 0.5, 2, 10]

/**
 * Counts and times requests, and serves all of the daemon's figures on `/metrics`. Labels are the
 * pattern of the route, the method and the code, so there are only so many, whatever clients send.
 */
export function metricsRoutes(app: FastifyInstance, context: ApiContext): void {
  const { metrics, watches, clock } = context
  const registers = [metrics]
  const requests = new Counter({
    name: 'macfleet_api_requests_total',
    help: 'Requests answered.',
    labelNames: ['method', 'route', 'code'],
    registers,
  })
  const durations = new Histogram({
    name: 'macfleet_api_request_duration_seconds',
    help: 'Time from a request to the end of its answer, without those that stay open.',
    labelNames: ['method', 'route'],
    buckets,
    registers,
  })
  new Gauge({
    name: 'macfleet_api_watches',
    help: 'Watches open now.',
    registers,
    collect() {
      this.set(watches.size)
    },
  })
  const startedMs = new WeakMap<object, number>()
  app.addHook('onRequest', async request => {
    startedMs.set(request, clock.monotonicMs())
  })
  app.addHook('onResponse', async (request, reply) => {
    const route = request.routeOptions.url ?? 'none'
    const { method } = request
    requests.inc({ method, route, code: String(reply.statusCode) })
    const isOpen = longRoutes.test(route) || reply.raw.getHeader('cache-control') === 'no-store'
    const began = startedMs.get(request)
    if (isOpen || began === undefined) return
    durations.observe({ method, route }, (clock.monotonicMs() - began) / 1000)
  })
  serve(app, '/metrics', {
    async GET(_, reply) {
      return reply.type(metrics.contentType).send(await metrics.metrics())
    },
  })
}
