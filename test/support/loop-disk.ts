import { execFileSync } from 'node:child_process'
import { chmodSync, mkdirSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'
import { temporaryFolder } from './temporary-folder.ts'

const MiB = 1024 * 1024

/** Mounts a file system of its own, in a file; it goes when the test ends. @returns its folder */
export function mountLoop(kind: 'xfs' | 'ext4', sizeMiB: number): string {
  const folder = temporaryFolder()
  const file = join(folder, 'file')
  const mounted = join(folder, 'mounted')
  writeFileSync(file, '')
  truncateSync(file, sizeMiB * MiB)
  // On ext4 root could go on with the blocks that are reserved for it.
  execFileSync(`mkfs.${kind}`, kind === 'ext4' ? ['-q', '-m', '0', file] : ['-q', file])
  mkdirSync(mounted)
  execFileSync('mount', ['-o', 'loop', file, mounted])
  onTestFinished(() => void execFileSync('umount', ['--lazy', mounted]))
  chmodSync(mounted, 0o755)
  chmodSync(folder, 0o711)
  return mounted
}
