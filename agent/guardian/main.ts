import { flushCompileCache } from 'node:module'
import { dirname, join } from 'node:path'
import { systemClock } from '../../base/clock.ts'
import { makeFolder } from '../../base/files.ts'
import { formatGuardianOptions, guardianPaths, parseGuardianOptions } from './options.ts'
import { createPlainLog } from './plain-log.ts'
import { lockedCommand } from './standing.ts'

/**
 * Prepares the guardian, then becomes it: this process takes the locks (flock(1) keeps them over
 * an exec) and starts Node anew. When whoever starts us sets NODE_COMPILE_CACHE, the program is
 * compiled into that folder first, so that the process that stays never loads Node's type
 * stripper. Measured: 13 MB of its own instead of 27.
 */
async function becomeGuardian(): Promise<void> {
  const options = parseGuardianOptions(process.argv.slice(2))
  const { locks } = guardianPaths(options)
  // Guests' users pass through the data folder, the socket's group through the run folder.
  makeFolder(options.dataFolder, 0o711)
  makeFolder(options.runFolder, 0o755)
  for (const lock of locks) makeFolder(dirname(lock))
  await import('./serve.ts')
  // It is loaded when there is a lease, by the process that stays.
  await import('./lease-renewal.ts')
  flushCompileCache()
  const program = join(import.meta.dirname, 'serve.ts')
  const command = [process.execPath, program, ...formatGuardianOptions(options)]
  const [file = '', ...rest] = lockedCommand(locks, command)
  process.execve?.(`/usr/bin/${file}`, [file, ...rest])
}

try {
  await becomeGuardian()
} catch (error) {
  const log = createPlainLog({ name: 'guardian' }, systemClock)
  log.error({ error: String(error) }, 'the guardian can not be started')
  process.exit(2)
}
