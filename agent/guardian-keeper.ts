import type { Clock } from '../base/clock.ts'
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

/**
 * The guardian of this host, started when there is none and again when it dies. Under systemd it is
 * systemd that starts it; then it is only waited for.
 */
export async function keepGuardian(
  config: Pick<Config, 'runDir' | 'dataDir' | 'guardian'>,
  components: GuardianKeeperComponents,
): Promise<Guardian> {
  const { log, limits } = components
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
  let closed = false
  guardian.onLost(() => {
    if (closed) return
    log.error({}, 'the guardian is gone, and with it every guest of this host')
    ensure().catch(error => {
      log.error({ error: messageOf(error) }, 'no new guardian could be started')
    })
  })
  return {
    ...guardian,
    close() {
      closed = true
      guardian.close()
    },
  }
}
