import { readFileSync } from 'node:fs'
import { joinFleet } from '../../agent/membership/join-fleet.ts'
import { systemClock } from '../../base/clock.ts'
import { defaultLimits } from '../../base/limits.ts'
import { silentLog } from '../../base/log.ts'
import { systemRandom } from '../../base/random.ts'

/** Joins as the file named by the argument says; a process of its own, so that it can be killed. */
const init = JSON.parse(readFileSync(process.argv[2] ?? '', 'utf8'))
const components = {
  clock: systemClock,
  random: systemRandom,
  log: silentLog,
  limits: defaultLimits,
}
await joinFleet(init, components, AbortSignal.timeout(20_000))
