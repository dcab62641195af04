import type { Limits } from '../../base/limits.ts'
import { type Log, messageOf } from '../../base/log.ts'
import { checkChunk } from '../../images/format/packs.ts'
import type { ImageSource, LayerSource, SourceDescription } from '../../images/sources/source.ts'
import type { OpenSource } from '../../images/transfer/open-source.ts'
import type { RepairSource } from '../../images/verify-image.ts'

/** What fetching the right bytes needs. */
export interface RepairSourceComponents {
  openSource: OpenSource
  log: Log
  limits: Pick<Limits, 'bootFileBytes' | 'layerIndexBytes'>
}

/** The right bytes, from whoever has them. */
export interface OpenRepairSource extends RepairSource {
  close(): Promise<void>
}

/** A source that failed so often is asked no more. */
const mostFailures = 3

interface Asked {
  description: SourceDescription
  failures: number
  opened?: ImageSource
  layers: Map<string, LayerSource>
}

/** Asks one source after the other; nothing is opened before something is wanted. */
export function createRepairSource(
  sources: readonly SourceDescription[],
  { openSource, log, limits }: RepairSourceComponents,
  signal: AbortSignal,
): OpenRepairSource {
  const asked = sources.map(
    (description): Asked => ({ description, failures: 0, layers: new Map() }),
  )
  const fromAny = async <T>(
    read: (source: ImageSource, each: Asked) => Promise<T | undefined>,
  ): Promise<T | undefined> => {
    for (const each of asked) {
      if (each.failures >= mostFailures) continue
      try {
        each.opened ??= await openSource(each.description)
        const found = await read(each.opened, each)
        if (found !== undefined) return found
      } catch (error) {
        signal.throwIfAborted()
        each.failures++
        const fields = { source: each.description.name, error: messageOf(error) }
        log.debug(fields, 'a source gave nothing for a repair')
      }
    }
    return undefined
  }
  return {
    fetchChunk: (digest, index, number) =>
      fromAny(async (source, { layers }) => {
        const layer = layers.get(digest) ?? (await source.openLayer(digest, index, signal))
        layers.set(digest, layer)
        for await (const chunk of layer.fetch([number], signal)) {
          // Its memory may be used again.
          const bytes = Buffer.from(chunk.bytes)
          chunk.release?.()
          if (chunk.number !== number) continue
          // Else the next one would not be asked.
          checkChunk(bytes, index.chunks[number]?.digest ?? '')
          return bytes
        }
        return undefined
      }),
    fetchBlob: digest =>
      fromAny(async source => {
        const mostBytes = Math.max(limits.bootFileBytes, limits.layerIndexBytes)
        const pieces = source.readBlob(digest, mostBytes, signal)[Symbol.asyncIterator]()
        // Who has it not says so at the first piece.
        const first = await pieces.next()
        return withFirst(first, pieces)
      }),
    async close() {
      await Promise.allSettled(asked.map(({ opened }) => opened?.close()))
    },
  }
}

async function* withFirst(
  first: IteratorResult<Uint8Array>,
  pieces: AsyncIterator<Uint8Array>,
): AsyncGenerator<Uint8Array> {
  try {
    for (let next = first; !next.done; next = await pieces.next()) yield next.value
  } finally {
    await pieces.return?.()
  }
}
