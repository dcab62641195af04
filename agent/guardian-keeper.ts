import { backoffMs } from '../base/backoff.ts'
import { type Clock, sleep } from '../base/clock.ts'
import { messageOf } from '../base/errors.ts'
import type { Limits } from '../base/limits.ts'
import type { Log } from '../base/log.ts'
import type { Config } from './config.ts'
import { connectGuardian, type Guardian } from './guardian/client.ts'
import { ensureGuardian } from './guardian/launch.ts'
import { guardianPaths } from './guardian/options.ts'

/** What keeping a guardian needs. */
export interface GuardianKeeperComponents {
  clock: Clock
  log: Log
  limits: Limits
}

/** How long a guardian may take to start: Node and a walk over a few files, on a busy machine. */
const startTimeoutMs = 30_000
const requestTimeoutMs = 10_000
/** Between tries to start one, when it does not. */
const restoreBackoff = { firstMs: 1000, mostMs: 60_000 }

/**
 * The guardian of this host, started when there is none and again when it dies. Under systemd it is
 * systemd that starts it; then it is only waited for.
 */
export async function keepGuardian(
  config: Pick<Config, 'runDir' | 'dataDir' | 'guardian'>,
  components: GuardianKeeperComponents,
): Promise<Guardian> {
  const { clock, log, limits } = components
  const options = { runFolder: config.runDir, dataFolder: config.dataDir }
  const managed = config.guardian === 'systemd'
  const ensure = () =>
    ensureGuardian({ options, managed, timeoutMs: startTimeoutMs, limits }, components)
  await ensure()
  const guardian = connectGuardian(
    {
      socketPath: guardianPaths(options).socket,
      timeoutMs: requestTimeoutMs,
      reconnect: { firstMs: 20, mostMs: 500 },
      limits,
    },
    components,
  )
  const closing = new AbortController()
  let restoring = false
  const bringBack = async (): Promise<void> => {
    if (restoring) return
    restoring = true
    for (let failures = 1; !closing.signal.aborted; failures++) {
      try {
        await ensure()
        break
      } catch (error) {
        if (closing.signal.aborted) break
        log.error({ error: messageOf(error) }, 'there is no guardian; it is tried again')
        await sleep(clock, backoffMs(restoreBackoff, failures), closing.signal).catch(() => {})
      }
    }
    restoring = false
  }
  guardian.onLost(() => {
    if (closing.signal.aborted) return
    log.error({}, 'the connection to the guardian is lost; if it died, every guest here did')
    void bringBack()
  })
  // It may have died before this connection was made, whose loss nobody would tell then.
  guardian.hello().catch(bringBack)
  return {
    ...guardian,
    close() {
      closing.abort()
      guardian.close()
    },
  }
}
