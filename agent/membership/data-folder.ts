import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { failure, messageOf } from '../../base/errors.ts'
import { isErrno, writeFileAtomic } from '../../base/files.ts'
import type { Log } from '../../base/log.ts'
import { adoptFleetFolder, type FleetFolderInit } from './fleet-folder.ts'
import { readMachineId } from './machine-id.ts'

/** Holds the digest of the machine id of the machine that the data folder belongs to. */
const fileOf = (dataDir: string): string => join(dataDir, 'machine-id')

/**
 * Sees that a data folder is on the machine that it was made on, before anything of it is used.
 * @returns writes down whose it is, when nobody has; to be called when all else was found right
 * @throws adoptNeeded on another machine; badRequest when it is bound and this one has no id
 */
export async function checkDataFolder(
  { dataDir, machineIdFile }: FleetFolderInit,
  { log }: { log: Log },
): Promise<() => Promise<void>> {
  const bound = await readBound(dataDir)
  if (bound === undefined) {
    return async () => {
      try {
        await writeBound(dataDir, await readMachineId(machineIdFile))
      } catch (error) {
        // A single host works without; it is only not seen then that its folder was copied.
        log.warn({ error: messageOf(error) }, 'the data folder is bound to no machine')
      }
    }
  }
  if (bound !== (await readMachineId(machineIdFile))) {
    throw failure('adoptNeeded', { folder: dataDir })
  }
  return async () => {}
}

/**
 * Binds a data folder to this machine, because the one that it was made on never runs it again.
 * @throws fleetFolderDamaged; badRequest when this machine has no machine id
 */
export async function adoptDataFolder(init: FleetFolderInit): Promise<void> {
  const machineId = await readMachineId(init.machineIdFile)
  await adoptFleetFolder(init)
  await writeBound(init.dataDir, machineId)
}

async function readBound(dataDir: string): Promise<string | undefined> {
  try {
    return (await readFile(fileOf(dataDir), 'utf8')).trim()
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return undefined
    throw error
  }
}

async function writeBound(dataDir: string, machineId: string): Promise<void> {
  await writeFileAtomic(fileOf(dataDir), `${machineId}\n`)
}
