import { flushCompileCache } from 'node:module'
import { systemClock } from '../base/clock.ts'
import { runCommand } from '../base/command.ts'
import { MacfleetError, messageOf } from '../base/errors.ts'
import { defaultLimits } from '../base/limits.ts'
import { createLog } from '../base/log.ts'
import { createMetrics } from '../base/metrics.ts'
import { systemRandom } from '../base/random.ts'
import { type Config, readInvocation, usage } from './config.ts'
import type { Daemon } from './daemon.ts'
import { ownVersion } from './host-controller.ts'

/** How long a stop may take before the process ends anyway. */
const stopTimeoutMs = 15_000

async function serve(config: Config): Promise<void> {
  const { startDaemon } = await import('./daemon.ts')
  const { createTransitions } = await import('./fleet/transitions.ts')
  const { startNotifier } = await import('./notify.ts')
  const log = createLog({ level: config.logLevel, fields: { program: 'macfleetd' } })
  const components = {
    clock: systemClock,
    random: systemRandom,
    log,
    limits: defaultLimits,
    run: runCommand,
    transitions: createTransitions({ log }),
  }
  const { transitions } = components
  const start = () => startDaemon(config, { ...components, metrics: createMetrics() })
  process.on('unhandledRejection', error => {
    // One part's mistake must not end the others; systemd's watchdog ends a daemon that hangs.
    log.error({ error: messageOf(error), stack: (error as Error)?.stack }, 'unhandled rejection')
  })
  let daemon: Daemon | undefined = await start()
  // While its parts are down for a change, it is as well as it can be.
  const notifier = await startNotifier(
    { checkHealth: async () => daemon?.checkHealth() },
    components,
  )
  const stop = async (signal: NodeJS.Signals): Promise<void> => {
    log.info({ signal }, 'stopping; guests run on')
    systemClock.setTimer(stopTimeoutMs, () => process.exit(1))
    transitions.stop()
    await notifier.stop()
    await daemon?.stop()
    process.exit(0)
  }
  process.once('SIGTERM', stop)
  process.once('SIGINT', stop)
  // Node would do this when it ends; a daemon that is killed has it done, and the next starts fast.
  flushCompileCache()
  for (;;) {
    await transitions.ready()
    await daemon.stop()
    daemon = undefined
    await transitions.perform()
    daemon = await start()
  }
}

async function repairStore(config: Config): Promise<void> {
  const { repairLevelStore } = await import('../cluster/store/level-repair.ts')
  const folder = `${config.dataDir}/store`
  const report = await repairLevelStore(folder, { random: systemRandom })
  process.stdout.write(`${JSON.stringify(report, null, 2)}\n`)
}

async function adopt(config: Config): Promise<void> {
  const { adoptDataFolder } = await import('./membership/data-folder.ts')
  await adoptDataFolder(config)
  process.stdout.write(`${config.dataDir} belongs to this machine now\n`)
}

/** Says what went wrong in a line, and ends with 2 when the request itself was wrong. */
function fail(error: unknown): never {
  process.stderr.write(`error: ${messageOf(error)}\n`)
  process.exit(error instanceof MacfleetError && error.code === 'badRequest' ? 2 : 1)
}

try {
  const { action, config } = readInvocation(process.argv.slice(2))
  if (action === 'help') process.stdout.write(usage)
  else if (action === 'version') process.stdout.write(`macfleetd ${ownVersion()}\n`)
  else if (action === 'repair-store') await repairStore(config)
  else if (action === 'adopt') await adopt(config)
  else await serve(config)
} catch (error) {
  fail(error)
}
