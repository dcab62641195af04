import {
  closeSync,
  existsSync,
  openSync,
  readdirSync,
  readFileSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { checkout } from '../../agent/dev/local-host.ts'
import { identify } from '../../base/process-identity.ts'
import {
  contentOf,
  createTestHost,
  isReady,
  qemuPids,
  runCli,
  type TestHost,
  until,
} from '../support/host.ts'

const micro = join(checkout, '.macfleet/guests/micro.raw')

const storeFolder = (host: TestHost) => join(host.host.dataDir, 'store')

/** A file of the store's LevelDB. */
function databaseFile(host: TestHost, pattern: RegExp): string {
  const folder = join(storeFolder(host), 'level')
  const name = readdirSync(folder).find(name => pattern.test(name))
  if (name === undefined) throw new Error(`no ${pattern} in ${readdirSync(folder)}`)
  return join(folder, name)
}

/** What a store consists of; LevelDB's own log and its lock are no part of it. */
function filesOf(folder: string): string[][] {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter(name => !/LOG|LOCK/.test(name) && statSync(join(folder, name)).isFile())
    .map(name => [name, readFileSync(join(folder, name), 'base64')])
    .sort()
}

function garble(path: string, at: number): void {
  const file = openSync(path, 'r+')
  writeSync(file, Buffer.alloc(64, 0xa5), 0, 64, Math.floor(statSync(path).size * at))
  closeSync(file)
}

async function stop(host: TestHost): Promise<void> {
  process.kill(host.host.pid, 'SIGTERM')
  await until('the daemon has ended', () => (identify(host.host.pid) ? undefined : true))
}

function macfleetd(host: TestHost, ...flags: string[]) {
  const config = join(host.folder, 'macfleetd.yaml')
  return runCli(join(checkout, 'bin/macfleetd'), ['--config', config, ...flags], process.env)
}

describe('a daemon whose files were damaged', { concurrent: false }, () => {
  let host: TestHost
  let pids: number[]
  beforeAll(async () => {
    host = await createTestHost()
    await host.must('image', 'import', micro, '--name', 'micro')
    await host.must('run', 'micro', '--name', 'kept', '--memory', '192Mi', '--wait')
    pids = qemuPids(host)
    const document = (index: number) =>
      `apiVersion: v1\nkind: Namespace\nmetadata: { name: extra-${index} }`
    const manifest = join(host.folder, 'extra.yaml')
    writeFileSync(manifest, Array.from({ length: 100 }, (_, at) => document(at)).join('\n---\n'))
    await host.must('apply', '-f', manifest)
  })
  afterAll(() => host?.remove())

  const namespaces = async () => {
    const { items } = JSON.parse(await host.must('get', 'namespaces', '-o', 'json'))
    return items.length
  }

  test.each([
    { what: 'journal', file: /\.log$/, at: 0.9 },
    { what: 'list of files', file: /^MANIFEST/, at: 0.1 },
  ])('refuses a store with a damaged $what and mends it when told to', async damage => {
    await stop(host)
    garble(databaseFile(host, damage.file), damage.at)
    const before = filesOf(storeFolder(host))
    const refused = await macfleetd(host)
    expect(refused.code).toBe(1)
    expect(refused.stderr).toContain(`the store in ${storeFolder(host)} is damaged`)
    expect(refused.stderr).toContain('macfleetd --repair-store')
    expect(filesOf(storeFolder(host))).toEqual(before)
    expect(qemuPids(host)).toEqual(pids)

    const repaired = await macfleetd(host, '--repair-store')
    expect({ code: repaired.code, stderr: repaired.stderr }).toEqual({ code: 0, stderr: '' })
    const report = JSON.parse(repaired.stdout)
    expect(filesOf(report.backupFolder)).toEqual(before)
    await host.start()
    const machine = await host.untilMachine('kept', isReady)
    expect(machine.status?.restarts ?? 0).toBe(0)
    expect(qemuPids(host)).toEqual(pids)
    expect(await namespaces()).toBeGreaterThan(90)
    expect(await host.must('ssh', 'kept', '--', 'echo', 'here')).toBe('here\n')
  })

  test('makes a damaged index of its images anew, and says so', async () => {
    await stop(host)
    const index = join(host.host.dataDir, 'images/index')
    writeFileSync(join(index, 'CURRENT'), 'garbage')
    await host.start()
    expect(contentOf(host.host.log)).toContain('the index of the images is damaged')
    expect(existsSync(`${index}.damaged`)).toBe(true)
    await host.must('image', 'verify', 'micro')
    await host.untilMachine('kept', isReady)
    expect(qemuPids(host)).toEqual(pids)
  })
})

test('a guest whose machine was lost with the store is left alone, and named', async () => {
  const host = await createTestHost()
  try {
    await host.must('image', 'import', micro, '--name', 'micro')
    await host.must('run', 'micro', '--name', 'orphan', '--memory', '128Mi')
    const machine = await host.untilMachine('orphan', at => at.status?.phase === 'Running')
    const { uid = '' } = machine.metadata
    const pids = qemuPids(host)
    await stop(host)
    const journal = databaseFile(host, /\.log$/)
    truncateSync(journal, readFileSync(journal).indexOf('"orphan"'))
    expect((await macfleetd(host)).code).toBe(1)
    const repaired = await macfleetd(host, '--repair-store')
    expect({ code: repaired.code, stderr: repaired.stderr }).toEqual({ code: 0, stderr: '' })
    await host.start()
    const said = 'this host has a guest whose machine is not in the store'
    await until('it is told', () => (contentOf(host.host.log).includes(said) ? true : undefined))
    expect((await host.macfleet('get', 'vm', 'orphan')).code).toBe(4)
    expect(qemuPids(host)).toEqual(pids)
    expect(existsSync(join(host.host.dataDir, 'guests', uid, 'guest/disk.qcow2'))).toBe(true)
  } finally {
    await host.remove()
  }
})
