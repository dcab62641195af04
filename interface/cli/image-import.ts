import { createReadStream, type Stats } from 'node:fs'
import { stat } from 'node:fs/promises'
import { basename } from 'node:path'
import { type Readable, Transform } from 'node:stream'
import type { Timer } from '../../base/clock.ts'
import { failure, messageOf } from '../../base/errors.ts'
import type { Resource } from '../../resources/kind.ts'
import { type Connection, cleanupClient } from './command-module.ts'
import { readFleet } from './fleet-client.ts'
import type { Invocation } from './invocation.ts'
import { imageName } from './kinds.ts'
import { nameStem } from './machine-spec.ts'
import { createProgress, type Progress } from './progress.ts'
import {
  asResource,
  createObject,
  deleteObject,
  getObject,
  groupVersion,
  objectPath,
} from './resource-client.ts'
import { StatusError } from './status-error.ts'
import { isRecord, memberAt, textOf } from './untyped.ts'

/** What is imported, and as what. */
export interface ImportInit {
  /** A file, or `-` for standard input. */
  file: string
  name: string | undefined
  format: string
  kernel?: string
  initrd?: string
  /** Fields of the image's spec that were given. */
  spec: Record<string, unknown>
}

type Part = 'kernel' | 'initrd' | 'content'

interface Import extends ImportInit {
  name: string
  connection: Connection
  invocation: Invocation
  progress: Progress
}

/** A name for an image, from its file: `debian-12.qcow2` becomes `debian-12`. */
export function imageNameOf(file: string): string {
  return nameStem(basename(file).replace(/\.(raw|img|qcow2|qcow)$/i, ''))
}

/**
 * Creates an image and sends its bytes; what was begun is taken back when it fails.
 * @returns the image as it is then
 * @throws fileUnreadable, and what the daemon refuses
 */
export async function importImage(
  init: ImportInit,
  connection: Connection,
  invocation: Invocation,
): Promise<Resource> {
  const name = init.name ?? (init.file === '-' ? undefined : imageNameOf(init.file))
  if (name === undefined) {
    const detail = 'give the image a --name when it comes from standard input'
    throw failure('usageWrong', { detail, command: 'macfleet image import' })
  }
  const files = [init.kernel, init.initrd, init.file].filter(file => file !== undefined)
  // Looked at before anything is created.
  for (const file of files) if (file !== '-') await sizeOf(file)
  const { stderr: stream, clock } = invocation
  const progress = createProgress({ stream, clock })
  const work: Import = { ...init, name, connection, invocation, progress }
  const ours = await claimName(work)
  try {
    if (init.kernel !== undefined) await upload(work, 'kernel', init.kernel)
    if (init.initrd !== undefined) await upload(work, 'initrd', init.initrd)
    return await upload(work, 'content', init.file)
  } catch (thrown) {
    progress.clear()
    if (ours) await takeBack(work)
    throw thrown
  } finally {
    progress.clear()
  }
}

/**
 * Creates the image's object.
 * @returns whether it is ours: one that an earlier import left without content is gone on with, and
 *   so is one that only other hosts have
 */
async function claimName({ connection, name, spec }: Import): Promise<boolean> {
  const { client, namespace } = connection
  const type = { apiVersion: groupVersion(imageName), kind: imageName.kind }
  try {
    await createObject(client, imageName, namespace, { ...type, metadata: { name }, spec })
    return true
  } catch (thrown) {
    if (!(thrown instanceof StatusError) || thrown.reason !== 'AlreadyExists') throw thrown
    const found = await getObject(client, imageName, namespace, name)
    if (found.metadata.deletionTimestamp || (await isHeldHere(found, connection))) throw thrown
    return false
  }
}

/** Whether the host that we talk to has it; one that does not is given it, if it is the same. */
async function isHeldHere(image: Resource, { client }: Connection): Promise<boolean> {
  if (memberAt(image, 'status.phase') !== 'Ready') return false
  const hosts = memberAt(image, 'status.hosts')
  const { view } = await readFleet(client)
  return !Array.isArray(hosts) || hosts.includes(view.host)
}

async function takeBack({ connection, invocation, name }: Import): Promise<void> {
  const client = cleanupClient(invocation, connection)
  try {
    await deleteObject(client, imageName, { namespace: connection.namespace, name })
  } catch {
    // What made the import fail is the message that matters; `image list` still shows the rest.
  }
}

async function sizeOf(file: string): Promise<number | undefined> {
  let found: Stats
  try {
    found = await stat(file)
  } catch (error) {
    throw failure('fileUnreadable', { path: file, detail: messageOf(error) })
  }
  if (found.isDirectory()) {
    throw failure('fileUnreadable', { path: file, detail: 'it is a folder' })
  }
  return found.isFile() ? found.size : undefined
}

async function upload(work: Import, part: Part, file: string): Promise<Resource> {
  const { connection, invocation, progress } = work
  const { client, namespace } = connection
  const path = `${objectPath(imageName, namespace, work.name)}/${part}`
  const sizeBytes = file === '-' ? undefined : await sizeOf(file)
  const source: Readable = file === '-' ? invocation.stdin : createReadStream(file)
  const label = part === 'content' ? 'Sending' : `Sending ${part}`
  let sentBytes = 0
  const counted = new Transform({
    transform(chunk: Buffer, _, done) {
      sentBytes += chunk.length
      progress.update(label, sentBytes, sizeBytes)
      done(null, chunk)
    },
  })
  source.on('error', error => counted.destroy(error))
  counted.on('close', () => source.destroy())
  const stages = showStages(work, () => sizeBytes === undefined || sentBytes >= sizeBytes)
  try {
    const query = part === 'content' ? { format: work.format } : {}
    const contentType = 'application/octet-stream'
    const answer = await client.upload(path, source.pipe(counted), {
      query,
      contentType,
      sizeBytes,
    })
    return asResource(answer, `PUT ${path}`)
  } finally {
    stages.cancel()
  }
}

const stageEveryMs = 500

/**
 * Shows what the daemon does with an image once everything was sent: it tells so in the image's
 * status, and answers the request when it is done. To be cancelled then.
 */
export function showStages(
  work: Pick<Import, 'connection' | 'invocation' | 'progress' | 'name'>,
  isSent: () => boolean,
): Timer {
  const { connection, invocation, progress, name } = work
  let stopped = false
  let timer: Timer
  const look = async () => {
    try {
      if (!isSent()) return
      const image = await getObject(connection.client, imageName, connection.namespace, name)
      const told = memberAt(image, 'status.progress')
      if (stopped || !isRecord(told) || typeof told['doneBytes'] !== 'number') return
      const total = told['totalBytes']
      const label = textOf(told['stage'])
      progress.update(label, told['doneBytes'], typeof total === 'number' ? total : undefined)
    } catch {
      // Only the picture suffers; the upload itself tells what is wrong.
    } finally {
      if (!stopped) timer = invocation.clock.setTimer(stageEveryMs, look)
    }
  }
  timer = invocation.clock.setTimer(stageEveryMs, look)
  return {
    cancel() {
      stopped = true
      timer.cancel()
    },
  }
}
