import { readFile } from 'node:fs/promises'
import { type BackoffInit, backoffMs } from '../../base/backoff.ts'
import { type Clock, sleep } from '../../base/clock.ts'
import { isFailure } from '../../base/errors.ts'
import { isErrno } from '../../base/files.ts'
import { type Log, messageOf } from '../../base/log.ts'
import type { FleetOperations } from '../../interface/api/fleet-operations.ts'
import type { Config } from '../config.ts'
import { isSpent } from './spent-token.ts'

/** What joining by itself needs. */
export interface JoinByFileComponents {
  clock: Clock
  log: Log
}

/** The fleet may come up later than this host; a token that was refused is asked about seldom. */
const retry: BackoffInit = { firstMs: 1_000, mostMs: 60_000 }

/**
 * Joins with the token that lies on this host, if there is one, for as long as it takes: a host
 * that was netbooted has nobody who would type a command.
 * @returns ends it
 */
export function joinByFile(
  config: Pick<Config, 'joinTokenFile' | 'dataDir'>,
  operations: Pick<FleetOperations, 'join'>,
  { clock, log }: JoinByFileComponents,
): () => void {
  const stopping = new AbortController()
  const { signal } = stopping
  const run = async (): Promise<void> => {
    for (let tries = 1; !signal.aborted; tries++) {
      const token = await readToken(config.joinTokenFile, log)
      if (token === undefined) return
      if (await isSpent(token, config)) {
        log.info({ file: config.joinTokenFile }, 'the join token is that of a fleet that was left')
        return
      }
      try {
        await operations.join(token)
      } catch (error) {
        if (!isFailure(error, 'transitionRunning')) {
          const file = config.joinTokenFile
          log.error({ file, error: messageOf(error) }, 'this host can not join its fleet')
        }
      }
      await sleep(clock, backoffMs(retry, tries), signal).catch(() => {})
    }
  }
  void run()
  return () => stopping.abort()
}

async function readToken(path: string, log: Log): Promise<string | undefined> {
  try {
    const token = (await readFile(path, 'utf8')).trim()
    return token === '' ? undefined : token
  } catch (error) {
    if (!isErrno(error, 'ENOENT')) log.warn({ path, error: messageOf(error) }, 'no join token')
    return undefined
  }
}
