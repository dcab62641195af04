import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { failure } from '../../base/errors.ts'

/** How a guardian is started. */
export interface GuardianOptions {
  runFolder: string
  dataFolder: string
}

/** Reads `--run-dir` and `--data-dir`. @throws badRequest */
export function parseGuardianOptions(args: readonly string[]): GuardianOptions {
  try {
    const { values } = parseArgs({
      args: [...args],
      options: {
        'run-dir': { type: 'string', default: '/run/macfleet' },
        'data-dir': { type: 'string', default: '/var/lib/macfleet' },
      },
    })
    const { 'run-dir': runFolder, 'data-dir': dataFolder } = values
    return { runFolder: resolve(runFolder), dataFolder: resolve(dataFolder) }
  } catch (error) {
    throw failure('badRequest', { detail: error instanceof Error ? error.message : String(error) })
  }
}

/** The command line that means these options. */
export function formatGuardianOptions(options: GuardianOptions): string[] {
  return ['--run-dir', options.runFolder, '--data-dir', options.dataFolder]
}

/** All paths of a guardian. */
export function guardianPaths(options: GuardianOptions) {
  const folder = join(options.dataFolder, 'guardian')
  return {
    socket: join(options.runFolder, 'guardian.sock'),
    log: join(options.runFolder, 'guardian.log'),
    /** Held by flock(2) while a guardian lives: no other may serve either folder. */
    locks: [join(folder, 'lock'), join(options.runFolder, 'guardian.lock')],
    /** Of the processes, one file each. */
    registry: join(folder, 'processes'),
    /** Our own program without its types, so that Node need not load its type stripper again. */
    compiled: join(folder, 'compiled'),
  }
}
