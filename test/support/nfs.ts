import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { onTestFinished } from 'vitest'
import { until } from './host.ts'
import { temporaryFolder } from './temporary-folder.ts'

/** A folder that a real NFS server exports, and a client of another make, in user space. */
export interface NfsExport {
  /** What the client reads of a file. */
  read(path: string): Promise<Buffer>
  /** Names of what the client sees in a folder. */
  list(path: string): Promise<string[]>
}

/** Exports a folder by nfs-ganesha (NFSv4, read only, loopback) until the test ends. */
export async function exportByNfs(folder: string): Promise<NfsExport> {
  const own = temporaryFolder()
  const port = await freePort()
  const path = (name: string) => join(own, name)
  mkdirSync(path('recovery'))
  const core = `NFS_Port = ${port}; Bind_Addr = 127.0.0.1; Protocols = 4; mount_path_pseudo = true;
    Enable_NLM = false; Enable_RQUOTA = false; Enable_UDP = None;`
  const recovery = `RecoveryBackend = fs; RecoveryRoot = ${path('recovery')}; Graceless = true;
    Only_Numeric_Owners = true;`
  const shared = `Export_Id = 1; Path = ${folder}; Pseudo = /library; Access_Type = RO;
    Squash = None; SecType = sys; Protocols = 4; Transports = TCP; FSAL { Name = VFS; }`
  writeFileSync(
    path('ganesha.conf'),
    `NFS_CORE_PARAM { ${core} }\nNFSV4 { ${recovery} }\nEXPORT { ${shared} }\n`,
  )
  const files = ['-f', path('ganesha.conf'), '-p', path('pid'), '-L', path('log')]
  const serve = ['--pdeathsig', 'KILL', 'ganesha.nfsd', '-F', ...files]
  const server = spawn('setpriv', serve, { stdio: 'ignore' })
  const ended = once(server, 'exit')
  onTestFinished(async () => {
    server.kill('SIGKILL')
    await ended
  })
  const urlOf = (name: string) => `nfs://127.0.0.1/library${name}?version=4&nfsport=${port}`
  const run = async (program: string, name: string): Promise<Buffer> => {
    const how = { encoding: 'buffer', maxBuffer: 1024 * 1024 * 1024 } as const
    return (await promisify(execFile)(program, [urlOf(name)], how)).stdout
  }
  await until('the NFS server answers', async () => {
    if (server.exitCode !== null) throw new Error(readFileSync(path('log'), 'utf8').slice(-2000))
    return run('nfs-ls', '').catch(() => undefined)
  })
  return {
    read: name => run('nfs-cat', `/${name}`),
    async list(name) {
      const lines = (await run('nfs-ls', name === '' ? '' : `/${name}`))
        .toString('utf8')
        .split('\n')
      return lines.flatMap(line => line.trim().split(/\s+/).slice(5, 6)).sort()
    },
  }
}

async function freePort(): Promise<number> {
  const server = createServer()
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}
