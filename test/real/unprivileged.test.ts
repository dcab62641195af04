import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { createTestHost, isReady, qemuPids, type TestHost } from '../support/host.ts'
import { checkoutSeen, ordinaryUserHost } from '../support/ordinary-user.ts'

/** User ids of a process: real, effective, saved, file system (proc(5)). */
function usersOf(pid: number): Set<string> {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8')
  return new Set(/^Uid:\s*(.*)$/m.exec(status)?.[1]?.split(/\s+/))
}

describe('a daemon without root', { concurrent: false }, () => {
  let host: TestHost
  beforeAll(async () => {
    host = await createTestHost({}, ordinaryUserHost())
  })
  afterAll(() => host?.remove())

  test('says which containment is missing, and why', async () => {
    const { items } = JSON.parse(await host.must('get', 'hosts', '-o', 'json'))
    const missing: string[] = items[0].status.missingContainment
    expect(missing).toContainEqual(expect.stringMatching(/user/))
    expect(missing).toContainEqual(expect.stringMatching(/firewall/))
    const described = await host.must('describe', 'host', items[0].metadata.name)
    for (const sentence of missing) expect(described).toContain(sentence)
  })

  test('imports images and runs guests, as the caller', async () => {
    const micro = join(checkoutSeen(host.folder), '.macfleet/guests/micro.raw')
    await host.must('image', 'import', micro, '--name', 'micro')
    await host.must('run', 'micro', '--name', 'own', '--memory', '192Mi', '--wait')
    const pids = host.processes().map(({ pid }) => pid)
    const daemon = usersOf(host.host.pid)
    expect(daemon).not.toContain('0')
    for (const pid of pids) expect(usersOf(pid)).toEqual(daemon)
    expect(await host.must('ssh', 'own', '--', 'uname', '-n')).toContain('own')
    await host.untilMachine('own', at => at.status?.address !== undefined)
    expect(await host.must('exec', 'own', '--', 'echo', 'hello')).toBe('hello\n')
    expect(await host.must('logs', 'own')).toContain('macfleet micro guest ready')
  })

  test('takes its guests over from the one before', async () => {
    const before = qemuPids(host)
    await host.kill()
    await host.start()
    const machine = await host.untilMachine('own', isReady)
    expect(qemuPids(host)).toEqual(before)
    expect(machine.status?.restarts ?? 0).toBe(0)
    expect(await host.must('ssh', 'own', '--', 'uname', '-n')).toContain('own')
  })

  test('leaves nothing of a guest that is deleted', async () => {
    const { uid = '' } = (await host.machine('own')).metadata
    await host.must('delete', 'vm', 'own')
    expect(qemuPids(host)).toEqual([])
    expect(existsSync(join(host.host.dataDir, 'guests', uid))).toBe(false)
    expect(readdirSync(join(host.host.runDir, 'guests'))).toEqual([])
  })
})
