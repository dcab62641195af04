import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { runCommand } from '../../base/command.ts'
import { failure, messageOf } from '../../base/errors.ts'
import { makeFolder } from '../../base/files.ts'

/** The key pair that `macfleet` made for itself. */
export interface Identity {
  /** Path of the private key. */
  path: string
  /** The public key, one OpenSSH line. */
  publicKey: string
}

const identityPath = (folder: string): string => join(folder, 'id_ed25519')

/** The key pair in the settings folder; undefined when none was made yet. */
export async function readIdentity(folder: string): Promise<Identity | undefined> {
  const path = identityPath(folder)
  if (!existsSync(path) || !existsSync(`${path}.pub`)) return undefined
  return { path, publicKey: await readPublicKey(`${path}.pub`) }
}

/** The key pair in the settings folder; made by ssh-keygen the first time. */
export async function ensureIdentity(folder: string): Promise<Identity> {
  const found = await readIdentity(folder)
  if (found !== undefined) return found
  makeFolder(folder)
  const path = identityPath(folder)
  const args = ['-q', '-t', 'ed25519', '-N', '', '-C', 'macfleet', '-f', path]
  try {
    // An `n` where it asks whether to overwrite: another run may have made the key just now.
    await runCommand('ssh-keygen', args, { timeoutMs: 30_000, input: 'n\n' })
  } catch (error) {
    if (!existsSync(`${path}.pub`)) throw error
  }
  return { path, publicKey: await readPublicKey(`${path}.pub`) }
}

/**
 * Reads a public key. Given the private one, the `.pub` beside it is meant: a private key goes
 * nowhere.
 * @throws fileUnreadable
 */
export async function readPublicKey(path: string): Promise<string> {
  const text = await readText(path)
  if (text.includes('PRIVATE KEY')) {
    if (path.endsWith('.pub'))
      throw failure('fileUnreadable', { path, detail: 'it is a private key' })
    return readPublicKey(`${path}.pub`)
  }
  const line = text
    .split(/\r?\n/)
    .find(candidate => /^[a-z0-9@.-]+ [A-Za-z0-9+/=]+/.test(candidate))
  if (line === undefined) {
    throw failure('fileUnreadable', { path, detail: 'it holds no public key in the OpenSSH form' })
  }
  return line.trim()
}

async function readText(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    throw failure('fileUnreadable', { path, detail: messageOf(error) })
  }
}
