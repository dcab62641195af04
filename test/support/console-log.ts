import { statSync, watch } from 'node:fs'
import { dirname } from 'node:path'

function sizeOf(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.size ?? 0
}

/**
 * How long it takes from a request until a console log has grown, in milliseconds. The kernel tells
 * of changes in the log's folder (inotify(7)), whoever makes them.
 * @throws what the request throws, or after `timeoutMs`
 */
export async function timeToFirstByte(
  path: string,
  request: () => Promise<unknown>,
  timeoutMs: number,
): Promise<number> {
  const before = sizeOf(path)
  const { promise, resolve, reject } = Promise.withResolvers<number>()
  const watcher = watch(dirname(path), () => {
    if (sizeOf(path) > before) resolve(performance.now())
  })
  watcher.on('error', reject)
  const timer = setTimeout(
    () => reject(new Error(`nothing in ${path} within ${timeoutMs} ms`)),
    timeoutMs,
  )
  try {
    const beganMs = performance.now()
    const asked = request()
    asked.catch(reject)
    const grownMs = await promise
    await asked
    return grownMs - beganMs
  } finally {
    clearTimeout(timer)
    watcher.close()
  }
}
