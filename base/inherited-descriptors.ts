import type { StdioOptions } from 'node:child_process'
import { openSync, readdirSync } from 'node:fs'

/** What a child's standard input, output or error is. */
export type ChildStream = 'pipe' | 'ignore' | 'inherit' | number

/** Descriptors that may be opened by other threads between our look and the fork. */
const spare = 16

let nullDescriptor: number | undefined

/**
 * The `stdio` of a child that gets three streams and nothing else of ours. Node opens its own files
 * so that children don't get them (O_CLOEXEC), but LevelDB does not: without this, whatever we
 * start, a converter of hostile disks too, could write to our databases. Every descriptor up to the
 * highest that we have is replaced by /dev/null in the child.
 */
export function onlyStreams(
  input: ChildStream,
  output: ChildStream,
  error: ChildStream,
): StdioOptions {
  const descriptor = nullDescriptor ?? openSync('/dev/null', 'r')
  nullDescriptor = descriptor
  const highest = Math.max(...readdirSync('/proc/self/fd').map(Number))
  return [input, output, error, ...new Array<number>(highest + spare - 2).fill(descriptor)]
}
