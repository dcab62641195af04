import { StringDecoder } from 'node:string_decoder'
import type { Limits } from '../../base/limits.ts'

/**
 * The lines of a stream that was compressed: a small file may be made to unpack to anything, so
 * neither a line nor all of them may be longer than what a store holds.
 * @throws Error beyond that
 */
export async function* linesOf(
  stream: AsyncIterable<Buffer>,
  limits: Limits,
): AsyncGenerator<string> {
  const decoder = new StringDecoder('utf8')
  // Keys count once in a store, JSON around them and the header do not.
  let leftBytes = 2 * limits.storeBytes
  let rest = ''
  for await (const part of stream) {
    leftBytes -= part.length
    if (leftBytes < 0) throw new Error('it unpacks to more than a store holds')
    const lines = (rest + decoder.write(part)).split('\n')
    rest = lines.pop() ?? ''
    if (rest.length > 2 * limits.transactionBytes) throw new Error('a line is too long')
    yield* lines
  }
  if (rest !== '') throw new Error('the last line is cut off')
}
