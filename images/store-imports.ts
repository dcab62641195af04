import { rm } from 'node:fs/promises'
import { failure } from '../base/errors.ts'
import type { ByteSource } from './byte-source.ts'
import { nameDiskFull } from './disk-space.ts'
import { recordOf } from './image-folder.ts'
import type { ImageRecord } from './image-record.ts'
import { buildImage, type ImportOptions } from './import-image.ts'
import { admitWork, findWhole, type StoreContext } from './store-context.ts'

/** Imports an image if there is room for one more at once. @throws as ImageStore.importImage */
export async function admitImport(
  context: StoreContext,
  source: ByteSource,
  options: ImportOptions,
): Promise<ImageRecord> {
  const limit = context.init.limits.imageImports
  if (context.imports.size >= limit) throw failure('tooMany', { limit, what: 'imports at once' })
  const work = admitWork(context, options.signal, signal =>
    runImport(context, source, { ...options, signal }),
  )
  context.imports.add(work)
  try {
    const record = await work
    context.metrics.importEnded('imported')
    return record
  } catch (error) {
    context.metrics.importEnded('failed')
    throw error
  } finally {
    context.imports.delete(work)
  }
}

async function runImport(
  context: StoreContext,
  source: ByteSource,
  options: ImportOptions & { signal: AbortSignal },
): Promise<ImageRecord> {
  const { shelf, turns, tools, init } = context
  options.signal.throwIfAborted()
  const incoming = shelf.makeIncoming()
  try {
    const built = await buildImage(tools, incoming, source, options)
    options.signal.throwIfAborted()
    const digest = await turns.take(() => shelf.put(built))
    const record = recordOf(digest, findWhole(context, digest))
    context.components.log.info({ image: digest }, 'an image was imported')
    return record
  } catch (error) {
    options.signal.throwIfAborted()
    throw nameDiskFull(error, init.folder)
  } finally {
    await rm(incoming, { recursive: true, force: true })
  }
}
