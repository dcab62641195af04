import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { temporaryFolder } from './temporary-folder.ts'

/** buildah with storage of the running test's own. */
export interface Buildah {
  /** Makes an image of these files, each in a layer of its own; paths are where they go. */
  build(
    name: string,
    files: readonly { from: string; to: string }[],
    format: 'oci' | 'docker',
  ): Promise<void>
  /** Sends an image, for instance to `docker://127.0.0.1:5000/team/disk:1`. */
  push(name: string, destination: string, ...options: string[]): Promise<void>
}

/** Everything that it makes goes when the test ends. */
export function createBuildah(): Buildah {
  const folder = temporaryFolder()
  const storage = ['--root', join(folder, 'root'), '--runroot', join(folder, 'run')]
  const run = async (...args: string[]): Promise<string> => {
    const { stdout } = await promisify(execFile)(
      'buildah',
      [...storage, '--storage-driver', 'vfs', ...args],
      { env: { ...process.env, TMPDIR: folder } },
    )
    return stdout.trim()
  }
  return {
    async build(name, files, format) {
      let base = 'scratch'
      for (const { from, to } of files) {
        const container = await run('from', '--pull=never', base)
        await run('copy', '-q', container, from, to)
        await run('commit', '-q', '--format', format, container, name)
        base = name
      }
    },
    async push(name, destination, ...options) {
      await run('push', '-q', '--tls-verify=false', ...options, name, destination)
    },
  }
}
