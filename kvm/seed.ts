import { createHash } from 'node:crypto'
import { mkdir, readFile, rm, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { CommandRunner } from '../base/command.ts'
import { assert } from '../base/errors.ts'
import { writeFileAtomic } from '../base/files.ts'
import type { GuestFolder } from './guest-folder.ts'
import type { UserIdentity } from './guest-user.ts'
import { exists, replaceFile } from './overlay.ts'
import { type SeedContent, seedFiles } from './user-data.ts'

/** A guest's NoCloud disk to be made. */
export interface SeedInit extends SeedContent {
  folder: GuestFolder
  owner: UserIdentity | undefined
}

const timeoutMs = 30_000

/**
 * All dates on the disk: the same content makes the same bytes. 1980 is as far back as FAT goes.
 */
const dateSeconds = Date.UTC(1980, 0, 1) / 1000
const volumeDate = '1980010100000000'

/**
 * Makes the disk that tells a guest its name, keys and user data: ISO 9660 with Joliet names and
 * the label `cidata` (cloud-init's NoCloud). One that was made from the same content stays.
 * @throws seedInvalid, commandMissing, commandFailed
 */
export async function createSeed(init: SeedInit, run: CommandRunner): Promise<void> {
  const { folder, owner } = init
  const files = seedFiles(init)
  const digest = createHash('sha256').update(JSON.stringify(files)).digest('hex')
  const present = await readFile(folder.seedDigest, 'utf8').catch(() => '')
  if (present === digest && (await exists(folder.seed))) return
  await rm(folder.seedDigest, { force: true })
  await replaceFile(folder, folder.seed, owner, temporary =>
    writeDisk(folder, files, temporary, run),
  )
  await writeFileAtomic(folder.seedDigest, digest)
}

async function writeDisk(
  folder: GuestFolder,
  files: Record<string, string>,
  path: string,
  run: CommandRunner,
): Promise<void> {
  const content = join(folder.path, 'seed.tmp')
  await rm(content, { recursive: true, force: true })
  try {
    await mkdir(content, { mode: 0o700 })
    for (const [name, text] of Object.entries(files)) await writeDated(join(content, name), text)
    await utimes(content, dateSeconds, dateSeconds)
    // With genisoimage's padding: busybox looks for a label only on disks of 68 KiB and more.
    const options = ['-quiet', '-volid', 'cidata', '-joliet', '-input-charset', 'utf-8']
    await writeFile(path, '', { mode: 0o600 })
    await run('genisoimage', [...options, '-o', path, content], { timeoutMs })
    await writeFile(path, withFixedDates(await readFile(path)))
  } finally {
    await rm(content, { recursive: true, force: true })
  }
}

async function writeDated(path: string, text: string): Promise<void> {
  await writeFile(path, text, { mode: 0o600 })
  await utimes(path, dateSeconds, dateSeconds)
}

/**
 * ECMA-119, 8.4: volume descriptors begin at sector 16; type 1 and 2 have four dates from byte 813
 * on.
 */
function withFixedDates(image: Buffer): Buffer {
  const sectorBytes = 2048
  for (let sector = 16; sector < 32; sector++) {
    const at = sector * sectorBytes
    assert(image.toString('latin1', at + 1, at + 6) === 'CD001', 'genisoimage made no ISO 9660')
    const type = image[at]
    if (type === 255) return image
    if (type !== 1 && type !== 2) continue
    // Made, changed, and from when it is valid; the third, the end of that, is left open.
    for (const date of [0, 1, 3]) image.write(`${volumeDate}\0`, at + 813 + date * 17, 'latin1')
  }
  throw new Error('genisoimage made a disk without an end to its descriptors')
}
