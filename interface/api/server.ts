import { createApp } from './app.ts'
import type { ApiComponents, ApiInit } from './context.ts'
import { listenOnUnixSocket } from './unix-socket.ts'

/** What is served, and where. */
export interface ApiServerInit extends ApiInit {
  socketPath: string
  /** The group whose members may use the socket, when the host has it. */
  socketGroup: string
}

/** The API of a daemon, on its unix socket. */
export interface ApiServer {
  /** Ends watches, sessions and uploads, and takes the socket away. */
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
  const { version, readiness, subresources, socketPath: path, socketGroup: group } = init
  const app = await createApp({
    ...components,
    version,
    readiness,
    subresources,
    closing: closing.signal,
    watches: new Set(),
  })
  try {
    const socket = await listenOnUnixSocket(app, { path, group }, components.log)
    return {
      async close() {
        await socket.close()
        closing.abort()
        await app.close()
      },
    }
  } catch (error) {
    await app.close()
    throw error
  }
}
