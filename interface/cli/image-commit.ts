import type { Resource } from '../../resources/kind.ts'
import type { Connection } from './command-module.ts'
import { showStages } from './image-import.ts'
import type { Invocation } from './invocation.ts'
import { virtualMachineName } from './kinds.ts'
import { createProgress } from './progress.ts'
import { asResource, objectPath } from './resource-client.ts'

/** Which machine becomes which image. */
export interface CommitInit {
  machine: string
  /** Of the image. */
  name: string
  description: string | undefined
  pinned: boolean | undefined
}

/** A disk of hundreds of gigabytes that was written whole takes its time. */
const commitTimeoutMs = 6 * 3600_000

/**
 * Makes an image of a machine and shows how far it is; the daemon takes back what was begun when
 * it fails, or when nobody waits for it any more.
 * @returns the image
 * @throws what the daemon refuses
 */
export async function commitMachine(
  { machine, name: image, description, pinned }: CommitInit,
  connection: Connection,
  invocation: Invocation,
): Promise<Resource> {
  const { client, namespace } = connection
  const { stderr: stream, clock } = invocation
  const progress = createProgress({ stream, clock })
  const stages = showStages({ connection, invocation, progress, name: image }, () => true)
  const path = `${objectPath(virtualMachineName, namespace, machine)}/commit`
  try {
    const body = { image, description, pinned }
    const answer = await client.request('POST', path, { body, timeoutMs: commitTimeoutMs })
    return asResource(answer, `POST ${path}`)
  } finally {
    stages.cancel()
    progress.clear()
  }
}
