import type { ServerResponse } from 'node:http'
import type { FastifyInstance } from 'fastify'
import type { Clock } from '../../base/clock.ts'
import { createApp } from './app.ts'
import type { ApiComponents, ApiInit } from './context.ts'
import { listenOnUnixSocket } from './unix-socket.ts'

/** How long a client may take to say goodbye. */
const farewellMs = 500
/** How long requests may take that came before the end; uploads are cut off then. */
const lastAnswersMs = 2_000

/** What is served, and where. */
export interface ApiServerInit extends ApiInit {
  socketPath: string
  /** The group whose members may use the socket, when the host has it. */
  socketGroup: string
}

/** The API of a daemon, on its unix socket. */
export interface ApiServer {
  /** Ends watches, sessions and uploads, and takes the socket away; what was asked is answered. */
  close(): Promise<void>
}

/**
 * Serves the resource API (DESIGN.md, "Interface").
 * @throws socketTaken, socketPathTooLong
 */
export async function startApiServer(
  init: ApiServerInit,
  components: ApiComponents,
): Promise<ApiServer> {
  const closing = new AbortController()
  const { socketPath: path, socketGroup: group, ...served } = init
  const app = await createApp({
    ...components,
    ...served,
    closing: closing.signal,
    watches: new Set(),
  })
  const lastAnswers = followAnswers(app, components.clock)
  try {
    const socket = await listenOnUnixSocket(app, { path, group }, components.log)
    return {
      async close() {
        await socket.close()
        closing.abort()
        await lastAnswers()
        // A WebSocket ends by its peer's word, for which it would wait half a minute.
        const timer = components.clock.setTimer(farewellMs, () => {
          for (const client of app.websocketServer.clients) client.terminate()
        })
        await app.close()
        timer.cancel()
      },
    }
  } catch (error) {
    await app.close()
    throw error
  }
}

/** @returns waits until nobody waits for an answer any more, for a while */
function followAnswers(app: FastifyInstance, clock: Clock): () => Promise<void> {
  const open = new Set<ServerResponse>()
  let onNone = () => {}
  app.server.on('request', (_, response: ServerResponse) => {
    open.add(response)
    response.once('close', () => {
      open.delete(response)
      if (open.size === 0) onNone()
    })
  })
  return () =>
    new Promise(resolve => {
      if (open.size === 0) return resolve()
      const timer = clock.setTimer(lastAnswersMs, resolve)
      onNone = () => {
        timer.cancel()
        resolve()
      }
    })
}
