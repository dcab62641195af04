import type { FastifyInstance } from 'fastify'
import { failure } from '../../base/errors.ts'
import { imageKind } from '../../resources/image.ts'
import { mediaType } from './body.ts'
import {
  type ApiContext,
  type ApiRequest,
  clientSignal,
  type Handler,
  parameter,
  referenceOf,
} from './context.ts'
import { pushRoute } from './push-route.ts'
import { collectionPath } from './resource-routes.ts'
import { serve } from './routes.ts'
import { unsupportedType } from './status.ts'
import type { DiskFormat, ImagePart } from './subresources.ts'

/** Serves an image's bytes and what can be asked about them. */
export function imageRoutes(app: FastifyInstance, context: ApiContext): void {
  const { objects, subresources } = context
  const path = `${collectionPath(imageKind)}/:name`
  for (const part of ['content', 'kernel', 'initrd'] as const) {
    serve(app, `${path}/${part}`, { PUT: uploadHandler(context, part) })
  }
  const find = (request: ApiRequest) => objects.get(imageKind, referenceOf(imageKind, request))
  serve(app, `${path}/verify`, {
    async POST(request, reply) {
      const repair = parameter(request.query, 'repair') ?? 'false'
      if (repair !== 'true' && repair !== 'false') {
        throw failure('badRequest', { detail: 'repair must be true or false' })
      }
      const image = await find(request)
      const how = { repair: repair === 'true', signal: clientSignal(context, reply) }
      const answer = await subresources.verifyImage(image, how)
      return reply.type('application/json').send(JSON.stringify(answer))
    },
  })
  pushRoute(app, context, `${path}/push`)
  serve(app, `${path}/inspect`, {
    async GET(request, reply) {
      const image = await find(request)
      const signal = clientSignal(context, reply)
      const answer = await subresources.inspectImage(image, { signal })
      return reply.type('application/json').send(JSON.stringify(answer))
    },
  })
}

function uploadHandler(context: ApiContext, part: ImagePart): Handler {
  return async (request, reply) => {
    const encoding = mediaType(request.headers['content-encoding'])
    if (encoding !== '' && encoding !== 'identity')
      throw unsupportedType(`${encoding} (compressed)`)
    const format = formatOf(request)
    const image = await context.objects.get(imageKind, referenceOf(imageKind, request))
    const sizeBytes = announcedSize(request.headers['content-length'])
    const stopWatching = watchProgress(context, request)
    try {
      return await context.subresources.receiveImagePart(image, part, request.raw, {
        format,
        signal: clientSignal(context, reply),
        ...(sizeBytes === undefined ? {} : { sizeBytes }),
      })
    } finally {
      stopWatching()
    }
  }
}

function formatOf(request: ApiRequest): DiskFormat {
  const format = parameter(request.query, 'format') ?? 'auto'
  if (format === 'raw' || format === 'qcow2' || format === 'auto') return format
  throw failure('badRequest', { detail: 'format must be raw, qcow2 or auto' })
}

function announcedSize(header: string | undefined): number | undefined {
  const size = header === undefined ? Number.NaN : Number(header)
  return Number.isSafeInteger(size) ? size : undefined
}

/** Breaks off an upload whose client sends nothing although we wait for it. */
function watchProgress(context: ApiContext, request: ApiRequest): () => void {
  const { clock, limits } = context
  const { raw } = request
  let seenBytes = raw.socket.bytesRead
  const look = () => {
    const isWaiting = raw.readableLength === 0 && !raw.readableEnded
    if (isWaiting && raw.socket.bytesRead === seenBytes) {
      const timeoutMs = limits.uploadIdleMs
      raw.destroy(failure('timeout', { what: 'the next part of the upload', timeoutMs }))
      return
    }
    seenBytes = raw.socket.bytesRead
    timer = clock.setTimer(limits.uploadIdleMs, look)
  }
  let timer = clock.setTimer(limits.uploadIdleMs, look)
  return () => timer.cancel()
}
