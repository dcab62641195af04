import { existsSync } from 'node:fs'
import { readFile, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { failure } from '../../base/errors.ts'
import { isErrno, makeFolder, readJsonFile, syncFolder, writeFileAtomic } from '../../base/files.ts'
import { messageOf } from '../../base/log.ts'
import { type Random, randomUuid } from '../../base/random.ts'
import { bundleOf } from '../../cluster/membership/authorities.ts'
import type { AuthorityPair } from '../../cluster/membership/authority.ts'
import { createIdentity, type Identity, loadIdentity } from '../../cluster/peers/identity.ts'
import type { FleetFile } from './fleet-file.ts'

/** The folders of a membership: the one that holds, one that is being made, and the one before. */
export interface Folders {
  dataDir: string
  fleet: string
  joining: string
  old: string
}

/** Where they are. */
export function foldersOf(dataDir: string): Folders {
  return {
    dataDir,
    fleet: join(dataDir, 'fleet'),
    joining: join(dataDir, 'fleet.joining'),
    old: join(dataDir, 'fleet.old'),
  }
}

/**
 * A folder that is whole (its fleet.json is written last) but has not its name yet is given it.
 * @returns whether there is a membership
 */
export async function finishRename({ dataDir, fleet, joining }: Folders): Promise<boolean> {
  if (existsSync(fleet)) return true
  if (!existsSync(join(joining, 'fleet.json'))) return false
  await rename(joining, fleet)
  await syncFolder(dataDir)
  return true
}

/** Who this host will be in the fleet; kept until it is in, so that a join can be taken up. */
export interface Joining {
  peer: Identity
  joinId: string
}

/**
 * Begins a membership, or takes up one that a crash ended. A host that was in a fleet before keeps
 * its key: with it, it proves that it is the same host.
 */
export async function beginMembership(folders: Folders, random: Random): Promise<Joining> {
  const { joining, fleet } = folders
  makeFolder(joining, 0o700)
  const keyFile = join(joining, 'peer.key')
  const stateFile = join(joining, 'join.json')
  const state = (await readJson(stateFile, 'optional')) as { joinId?: unknown } | undefined
  const joinId = typeof state?.joinId === 'string' ? state.joinId : randomUuid(random)
  const secret = (await readSecret(keyFile)) ?? (await readSecret(join(fleet, 'peer.key')))
  const peer = secret === undefined ? createIdentity(random) : loadIdentity(secret)
  await writeFileAtomic(keyFile, `${Buffer.from(peer.secret()).toString('base64')}\n`)
  await writeFileAtomic(stateFile, JSON.stringify({ joinId }))
  return { peer, joinId }
}

async function readSecret(path: string): Promise<Buffer | undefined> {
  if (!existsSync(path)) return undefined
  const secret = Buffer.from((await readText(path)).trim(), 'base64')
  return secret.length === 32 ? secret : undefined
}

/** Everything of a membership but the peer key, which is there already. */
export interface MembershipFiles {
  file: FleetFile
  /** The content of `etcd.pem` and `hosts.pem`. */
  etcd: string
  hosts: string
  pairs: readonly AuthorityPair[]
}

/** Makes the membership hold: after a crash it is there whole, or not at all. */
export async function commitMembership(folders: Folders, files: MembershipFiles): Promise<void> {
  await writeMembership(folders, files)
  await replaceMembership(folders)
}

/** Writes a membership beside the one that there is, if any; `fleet.json` says that it is whole. */
export async function writeMembership(
  { joining }: Folders,
  { file, etcd, hosts, pairs }: MembershipFiles,
): Promise<void> {
  const write = (name: string, text: string) => writeFileAtomic(join(joining, name), text)
  await write('etcd.pem', etcd)
  await write('hosts.pem', hosts)
  await write('etcd-ca.pem', bundleOf(file.authorities, 'etcd'))
  await write('hosts-ca.pem', bundleOf(file.authorities, 'hosts'))
  if (pairs.length > 0) await write('authorities.json', JSON.stringify(pairs))
  await write('fleet.json', JSON.stringify(file))
}

/** Puts the membership that was written in the place of the one before, whose keys go. */
export async function replaceMembership(folders: Folders): Promise<void> {
  const { fleet, old } = folders
  if (existsSync(fleet)) {
    await rm(old, { recursive: true, force: true })
    await rename(fleet, old)
  }
  await finishRename(folders)
  await rm(old, { recursive: true, force: true })
}

/** Ends the membership on this host's side. */
export async function discardFleetFolder(dataDir: string): Promise<void> {
  const { fleet, joining, old } = foldersOf(dataDir)
  for (const path of [joining, old]) await rm(path, { recursive: true, force: true })
  // Renamed first, so that a crash leaves no half of it.
  if (existsSync(fleet)) await rename(fleet, old)
  await rm(old, { recursive: true, force: true })
}

/** @throws fleetFolderDamaged */
export async function readText(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    const detail = isErrno(error, 'ENOENT') ? 'it is missing' : messageOf(error)
    throw failure('fleetFolderDamaged', { path, detail })
  }
}

/** @throws fleetFolderDamaged when it can't be read, or is missing and not optional */
export async function readJson(path: string, need?: 'optional'): Promise<unknown> {
  let value: unknown
  try {
    value = await readJsonFile(path)
  } catch (error) {
    throw failure('fleetFolderDamaged', { path, detail: messageOf(error) })
  }
  if (value === undefined && need === undefined) {
    throw failure('fleetFolderDamaged', { path, detail: 'it is missing' })
  }
  return value
}
