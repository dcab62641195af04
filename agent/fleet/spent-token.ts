import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { isErrno, writeFileAtomic } from '../../base/files.ts'
import type { Config } from '../config.ts'

type Places = Pick<Config, 'dataDir' | 'joinTokenFile'>

const fileOf = ({ dataDir }: Places): string => join(dataDir, 'spent-join-token')

/**
 * Writes down that this host has left, or was put out of, the fleet of the join token that lies on
 * it: by that token it does not come back by itself.
 */
export async function spendToken(places: Places): Promise<void> {
  const token = await readOptional(places.joinTokenFile)
  if (token !== undefined) await writeFileAtomic(fileOf(places), `${digestOf(token)}\n`)
}

/** Whether it is the token of a fleet that this host has left. */
export async function isSpent(token: string, places: Places): Promise<boolean> {
  return (await readOptional(fileOf(places)))?.trim() === digestOf(token)
}

function digestOf(token: string): string {
  return createHash('sha256').update(token.trim()).digest('hex')
}

async function readOptional(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return undefined
    throw error
  }
}
