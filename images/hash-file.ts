import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { digestOf } from './layer-index.ts'

/** The digest of a file's content. @throws the system's error, the signal's reason */
export async function hashFile(path: string, signal?: AbortSignal): Promise<string> {
  const hash = createHash('sha256')
  for await (const part of createReadStream(path, { signal })) hash.update(part)
  return digestOf(hash.digest())
}
