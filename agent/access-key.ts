import { readFile, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { CommandRunner } from '../base/command.ts'
import { isErrno, makeFolder } from '../base/files.ts'

/** The key with which the daemon itself logs in to guests, for `exec` with a terminal. */
export interface AccessKey {
  /** Path of the private key, readable by the daemon alone. */
  path: string
  /** One OpenSSH line. */
  publicKey: string
}

/**
 * The access key of this host, made at first use. Guests get its public half beside the user's
 * keys.
 * @throws commandMissing, commandFailed
 */
export async function loadAccessKey(dataDir: string, run: CommandRunner): Promise<AccessKey> {
  const folder = join(dataDir, 'access')
  const path = join(folder, 'id_ed25519')
  makeFolder(folder)
  const existing = await readPublicKey(path)
  if (existing !== undefined) return { path, publicKey: existing }
  const temporary = join(folder, 'new')
  await Promise.all([temporary, `${temporary}.pub`].map(file => rm(file, { force: true })))
  const args = ['-q', '-t', 'ed25519', '-N', '', '-C', 'macfleet', '-f', temporary]
  await run('ssh-keygen', args, { timeoutMs: 10_000 })
  // The private half first: a public half alone would be taken for a whole key.
  await rename(temporary, path)
  await rename(`${temporary}.pub`, `${path}.pub`)
  return { path, publicKey: (await readPublicKey(path)) ?? '' }
}

async function readPublicKey(path: string): Promise<string | undefined> {
  try {
    return (await readFile(`${path}.pub`, 'utf8')).trim()
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return undefined
    throw error
  }
}
