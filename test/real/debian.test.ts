import { execFileSync, spawn } from 'node:child_process'
import { existsSync, readdirSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { checkout } from '../../agent/dev/local-host.ts'
import type { Image } from '../../resources/image.ts'
import { createTestHost, qemuPids, readApi, type TestHost, until } from '../support/host.ts'

let host: TestHost
beforeAll(async () => {
  host = await createTestHost()
  const disk = join(checkout, '.macfleet/guests/debian.qcow2')
  await host.must('image', 'import', disk, '--name', 'debian')
})
afterAll(() => host?.remove())

describe('a Debian guest', { concurrent: false }, () => {
  test('is run, and used over SSH, agent and console', async () => {
    const run = ['run', 'debian', '--name', 'deb', '--cpu', '2', '--memory', '512Mi', '--wait']
    await host.must(...run)
    expect(await host.must('ssh', 'deb', '--', 'uname', '-n')).toBe('deb\n')
    await host.untilMachine('deb', at => at.status?.address !== undefined)
    expect(await inside('cat /etc/debian_version')).toMatch(/^12\.\d+\n$/)
    await until('the log has a login prompt', async () =>
      (await host.must('logs', 'deb')).includes('deb login:') ? true : undefined,
    )
    await useConsole()
    const timings = (await host.machine('deb')).status?.bootTimings
    expect(timings?.agentMs).toBeGreaterThan(timings?.firstConsoleByteMs ?? 0)
  }, 200_000)

  test('goes on when nobody waits for its commit any more, and nothing is left of it', async () => {
    await inside('head -c 30000000 /dev/urandom > /var/tmp/much; sync')
    const client = spawn(
      join(checkout, 'bin/macfleet'),
      ['--socket', host.host.socket, 'image', 'commit', 'deb', 'left'],
      { env: { ...process.env, MACFLEET_CONFIG_DIR: join(host.folder, 'config') } },
    )
    await until('its disk is being copied', copies)
    client.kill('SIGKILL')
    await until('the copy is gone', () => (copies() === undefined ? true : undefined))
    await until('so is the image', async () =>
      (await host.macfleet('get', 'image', 'left')).code === 4 ? true : undefined,
    )
    expect(await inside('sync && echo on')).toBe('on\n')
  }, 100_000)

  test('whose daemon is killed in the middle of its commit goes on, thawed', async () => {
    const committing = host.macfleet('image', 'commit', 'deb', 'tools')
    const [copy = ''] = await until('its disk is being copied', copies)
    await host.kill()
    expect((await committing).code).toBe(1)
    expect(existsSync(copy)).toBe(true)
    // The worst moment is between its freeze and its thaw.
    expect(await askAgent('guest-fsfreeze-freeze')).toBeGreaterThan(0)
    await host.start()
    await until('the copy is gone', () => (copies() === undefined ? true : undefined))
    // This waits for ever in a guest that is frozen.
    expect(await inside('echo thawed > /var/tmp/state && sync && cat /var/tmp/state')).toBe(
      'thawed\n',
    )
    const half = await imageOf('tools')
    expect(half.status).toMatchObject({ phase: 'Failed' })
    expect(half.status).not.toHaveProperty('digest')
    expect(readdirSync(join(host.host.dataDir, 'images/incoming'))).toEqual([])
  }, 120_000)

  test('is frozen for a moment while it is committed, so that its files are in order', async () => {
    // Not synced: what is in the guest's memory still has to be there too.
    await inside('echo kept > /var/tmp/state')
    const said = await host.macfleet('image', 'commit', 'deb', 'tools')
    expect(said).toMatchObject({ code: 0, stderr: expect.not.stringContaining('power') })
    const { status } = await imageOf('tools')
    expect(status?.conditions).toContainEqual(
      expect.objectContaining({ type: 'FileSystemsConsistent', status: 'True' }),
    )
    const hash = status?.digest?.slice('sha256:'.length) ?? ''
    const root = rootOf(join(host.host.dataDir, 'images', hash, 'disk.raw'))
    const features = execFileSync('dumpe2fs', ['-h', root], { encoding: 'utf8' })
    expect(features).not.toContain('needs_recovery')
    const file = execFileSync('debugfs', ['-R', 'cat /var/tmp/state', root], { encoding: 'utf8' })
    expect(file).toBe('kept\n')
    expect(await inside('echo more > /var/tmp/state && sync && echo $?')).toBe('0\n')
    expect(copies()).toBeUndefined()
  }, 120_000)

  test('is shut down', async () => {
    await host.must('stop', 'deb', '--wait')
    expect((await host.machine('deb')).status?.lastExit?.reason).toBe('GuestPoweredOff')
    expect(qemuPids(host)).toEqual([])
  }, 100_000)
})

const inside = (command: string) => host.must('exec', 'deb', '--', 'sh', '-c', command)
const imageOf = (name: string) =>
  readApi<Image>(host.host.socket, `/apis/macfleet.dev/v1/namespaces/default/images/${name}`)

/** Copies of disks that lie beside machines' disks; undefined when there are none. */
function copies(): string[] | undefined {
  const guests = join(host.host.dataDir, 'guests')
  const found = readdirSync(guests)
    .map(uid => join(guests, uid, 'guest/snapshot.qcow2'))
    .filter(path => existsSync(path))
  return found.length === 0 ? undefined : found
}

/** Asks the guest's agent for something while no daemon does. */
function askAgent(command: string): Promise<unknown> {
  const runs = join(host.host.runDir, 'guests')
  const [guest = ''] = readdirSync(runs)
  return new Promise((resolve, reject) => {
    const socket = connect(join(runs, guest, 'agent.sock'))
    let answer = ''
    socket.on('error', reject)
    socket.on('data', data => {
      answer += data
      // What the agent still had to say to the daemon comes first.
      const line = answer.split('\n').at(-2)
      if (line === undefined) return
      const said = JSON.parse(line.replaceAll('\u00ff', ''))
      if (typeof said.return !== 'number') return
      socket.destroy()
      resolve(said.return)
    })
    socket.setEncoding('latin1')
    socket.write(`${JSON.stringify({ execute: command })}\n`)
  })
}

/** The root file system in a disk, as programs for ext4 want it named. */
function rootOf(disk: string): string {
  const { partitiontable } = JSON.parse(execFileSync('sfdisk', ['-J', disk], { encoding: 'utf8' }))
  const sizes = partitiontable.partitions.map(({ size }: { size: number }) => size)
  const largest = partitiontable.partitions[sizes.indexOf(Math.max(...sizes))]
  return `${disk}?offset=${largest.start * 512}`
}

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
