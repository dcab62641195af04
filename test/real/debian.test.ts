import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { checkout } from '../../agent/dev/local-host.ts'
import { createTestHost, qemuPids, type TestHost, until } from '../support/host.ts'

let host: TestHost
beforeAll(async () => {
  host = await createTestHost()
  const disk = join(checkout, '.macfleet/guests/debian.qcow2')
  await host.must('image', 'import', disk, '--name', 'debian')
})
afterAll(() => host?.remove())

test('a Debian guest is run, used over SSH, agent and console, and shut down', async () => {
  const run = ['run', 'debian', '--name', 'deb', '--cpu', '2', '--memory', '512Mi', '--wait']
  await host.must(...run)
  expect(await host.must('ssh', 'deb', '--', 'uname', '-n')).toBe('deb\n')
  await host.untilMachine('deb', at => at.status?.address !== undefined)
  expect(await host.must('exec', 'deb', '--', 'cat', '/etc/debian_version')).toMatch(/^12\.\d+\n$/)
  await until('the log has a login prompt', async () =>
    (await host.must('logs', 'deb')).includes('deb login:') ? true : undefined,
  )
  await useConsole()
  const timings = (await host.machine('deb')).status?.bootTimings
  expect(timings?.agentMs).toBeGreaterThan(timings?.firstConsoleByteMs ?? 0)
  await host.must('stop', 'deb', '--wait')
  expect((await host.machine('deb')).status?.lastExit?.reason).toBe('GuestPoweredOff')
  expect(qemuPids(host)).toEqual([])
}, 200_000)

/** Presses return on the serial console and sees the guest ask again. */
async function useConsole(): Promise<void> {
  const console = spawn(
    join(checkout, 'bin/macfleet'),
    ['--socket', host.host.socket, 'console', 'deb'],
    { env: { ...process.env, MACFLEET_CONFIG_DIR: join(host.folder, 'config') } },
  )
  let seen = ''
  console.stdout.on('data', bytes => {
    seen += bytes
  })
  const prompts = () => seen.split('deb login:').length - 1
  try {
    const before = await until('the console replays its log', () => prompts() || undefined)
    console.stdin.write('\n')
    await until('the guest asks again', () => (prompts() > before ? true : undefined))
  } finally {
    console.kill()
  }
}
