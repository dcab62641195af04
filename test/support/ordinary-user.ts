import { chownSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { checkout } from '../../agent/dev/local-host.ts'
import type { TestHostInit } from './host.ts'

/** nobody: a user that every Debian has, which ssh(1) asks for. */
const user = { uid: 65_534, gid: 65_534 }

/** Shows the checkout, which may lie in a closed folder, where the user may look. */
const enter = [
  'mount --bind "$1" "$2"',
  'folder=$3',
  'shift 3',
  'cd "$folder"',
  `exec setpriv --reuid ${user.uid} --regid ${user.gid} --clear-groups -- \\
     env HOME="$folder" "$@"`,
].join('\n')

const isRoot = process.getuid?.() === 0

/** Where the user sees the checkout, given the folder of the user's host. */
export function checkoutSeen(folder: string): string {
  return isRoot ? join(folder, 'checkout') : checkout
}

/**
 * A host that belongs to a user without rights, when root runs the tests; otherwise to whoever runs
 * them. The mounts are seen by the programs that are started through them, and end with these.
 */
export function ordinaryUserHost(): TestHostInit {
  if (!isRoot) return {}
  return {
    prepare(folder) {
      for (const path of [checkoutSeen(folder), join(folder, 'run')]) mkdirSync(path)
      for (const path of [folder, join(folder, 'run')]) chownSync(path, user.uid, user.gid)
    },
    command: (folder, program) => [
      ...['unshare', '-m', 'sh', '-euc', enter, 'sh', checkout, checkoutSeen(folder), folder],
      join(checkoutSeen(folder), program),
    ],
  }
}
