import { createWriteStream } from 'node:fs'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import type { Clock } from '../../base/clock.ts'
import type { CommandRunner } from '../../base/command.ts'
import { failure } from '../../base/errors.ts'
import type { Limits } from '../../base/limits.ts'
import type { Log } from '../../base/log.ts'
import type { Random } from '../../base/random.ts'
import { readBackup } from '../../cluster/etcd/backup.ts'
import { noFacts } from '../../cluster/fleet/facts.ts'
import { decodeToken } from '../../cluster/membership/token-text.ts'
import { createObjects } from '../../cluster/objects.ts'
import type { Store } from '../../cluster/store/store.ts'
import type { FleetOperations } from '../../interface/api/fleet-operations.ts'
import { virtualMachineKind } from '../../resources/virtual-machine.ts'
import type { Config } from '../config.ts'
import { ownVersion } from '../host-controller.ts'
import { ownAddress } from './address.ts'
import { becomeFleet } from './become-fleet.ts'
import { explainOperation } from './explain-operation.ts'
import { joinWork } from './join-work.ts'
import { policyOf } from './policy.ts'
import { restoreFleet } from './restore-fleet.ts'
import type { Transitions } from './transitions.ts'

/** What operations on a single host need. */
export interface SingleOperationsComponents {
  clock: Clock
  random: Random
  log: Log
  limits: Limits
  run: CommandRunner
  store: Store
  transitions: Transitions
}

/** What a program may take to say its version. */
const programMs = 10_000

/** What an operator can do with a single host: make a fleet of it, or let it join one. */
export function singleOperations(
  config: Config,
  components: SingleOperationsComponents,
): FleetOperations {
  const { store, clock, transitions } = components
  const refuse = (what: string) => async (): Promise<never> => {
    throw failure('notInFleet', { what })
  }
  /** @throws commandMissing, commandFailed */
  const checkEtcd = () => components.run(config.fleet.etcd, ['--version'], { timeoutMs: programMs })
  return {
    async status() {
      const transition = transitions.current()
      return {
        mode: 'single',
        host: config.hostName,
        version: ownVersion(),
        leader: config.hostName,
        members: [],
        store: { kind: 'level', isAvailable: true },
        ...(transition && { transition }),
        warnings: [],
      }
    },
    async init() {
      // Now, so that the operator is told at once, and not when the daemon's parts are down.
      ownAddress(config)
      await checkEtcd()
      transitions.begin({
        kind: 'init',
        message: 'making a fleet of this host',
        change: say => becomeFleet(config, components, say),
      })
    },
    async join(token) {
      decodeToken(token)
      ownAddress(config)
      // Now, so that the operator is told at once, and again when no more can come.
      const check = () => refuseMachines(config, components)
      await check()
      transitions.begin(joinWork({ config, token, check }, components))
    },
    leave: refuse('leaving'),
    createToken: refuse('a join token'),
    listTokens: refuse('a list of join tokens'),
    revokeToken: refuse('revoking a token'),
    approveHost: refuse('approving a host'),
    removeHost: refuse('removing a host'),
    forgetHost: refuse('forgetting a host'),
    rotateAuthorities: refuse('replacing the authorities'),
    backup: refuse('a backup'),
    restore: createRestoring(config, components),
    explain: explainOperation(
      { fenced: false, policy: policyOf(config) },
      { store, clock, facts: noFacts },
    ),
  }
}

/** Only one at a time writes what it is sent to the one file that there is for it. */
function createRestoring(
  config: Config,
  components: SingleOperationsComponents,
): FleetOperations['restore'] {
  const { transitions, limits } = components
  const path = join(config.dataDir, 'restore')
  const drop = () => rm(path, { force: true })
  let receiving = false
  return async (sealed, passphrase) => {
    ownAddress(config)
    await refuseMachines(config, components)
    if (receiving || transitions.current()?.state === 'running') {
      throw failure('transitionRunning', { kind: transitions.current()?.kind ?? 'restore' })
    }
    receiving = true
    try {
      await pipeline(sealed, createWriteStream(path, { mode: 0o600 }))
      const backup = await readBackup(path, passphrase, limits)
      transitions.begin({
        kind: 'restore',
        message: 'restoring a backup',
        async prepare() {
          await refuseMachines(config, components).catch(async error => {
            await drop()
            throw error
          })
        },
        change: say => restoreFleet(config, backup, components, say).finally(drop),
      })
    } catch (error) {
      await drop()
      throw error
    } finally {
      receiving = false
    }
  }
}

/** What is on this host only would be lost. @throws hostHasMachines */
async function refuseMachines(
  { hostName: host }: Config,
  components: SingleOperationsComponents,
): Promise<void> {
  const { items } = await createObjects({}, components).list(virtualMachineKind)
  if (items.length === 0) return
  const names = items.slice(0, 5).map(({ metadata }) => `${metadata.namespace}/${metadata.name}`)
  throw failure('hostHasMachines', { host, count: items.length, names: names.join(', ') })
}
