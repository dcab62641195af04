import { spawn } from 'node:child_process'
import { existsSync, readdirSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { spawn as spawnTerminal } from 'node-pty'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { checkout } from '../../agent/dev/local-host.ts'
import { identify, isAlive, signalProcess } from '../../base/process-identity.ts'
import type { VirtualMachine } from '../../resources/virtual-machine.ts'
import { createTestHost, isReady, qemuPids, type TestHost, until } from '../support/host.ts'

const micro = join(checkout, '.macfleet/guests/micro.raw')

let host: TestHost
beforeAll(async () => {
  host = await createTestHost()
  await host.must('image', 'import', micro, '--name', 'micro')
})
afterAll(() => host?.remove())

const run = (name: string, ...more: string[]) =>
  host.must('run', 'micro', '--name', name, '--memory', '192Mi', '--wait', ...more)
const portOf = (machine: VirtualMachine) => machine.status?.ports?.[0]?.hostPort ?? 0
const restarts = (machine: VirtualMachine) => machine.status?.restarts ?? 0
const lastExit = (machine: VirtualMachine) => machine.status?.lastExit?.reason

/** The pid of the one QEMU of this host. */
function onlyPid(): number {
  const pids = qemuPids(host)
  expect(pids).toHaveLength(1)
  return pids[0] ?? 0
}

function canConnect(port: number): Promise<boolean> {
  return new Promise(resolve => {
    const socket = connect({ host: '127.0.0.1', port })
    socket.on('connect', () => resolve(true))
    socket.on('error', () => resolve(false))
    socket.on('connect', () => socket.destroy())
  })
}

/** What a command of `macfleet` prints on a terminal. */
function inTerminal(...args: string[]): Promise<string> {
  const terminal = spawnTerminal(
    join(checkout, 'bin/macfleet'),
    ['--socket', host.host.socket, ...args],
    { env: { ...process.env, MACFLEET_CONFIG_DIR: join(host.folder, 'config') } },
  )
  let printed = ''
  terminal.onData(data => {
    printed += data
  })
  return new Promise(resolve => terminal.onExit(() => resolve(printed)))
}

describe('a machine', { concurrent: false }, () => {
  test('runs, and is reached by ssh, exec, console and logs', async () => {
    await run('web')
    expect(await host.must('ssh', 'web', '--', 'uname', '-n')).toContain('web')
    await host.untilMachine('web', at => at.status?.address !== undefined)
    expect(await host.must('exec', 'web', '--', 'sh', '-c', 'echo $((6 * 7))')).toBe('42\n')
    const failed = await host.macfleet('exec', 'web', '--', 'sh', '-c', 'echo no >&2; exit 7')
    expect(failed).toEqual({ code: 7, stdout: '', stderr: 'no\n' })
    expect(await inTerminal('exec', '-it', 'web', '--', 'tty')).toContain('/dev/pts/')
    expect(await host.must('logs', 'web')).toContain('macfleet micro guest ready')
    const list = JSON.parse(await host.must('get', 'vms', '-o', 'json'))
    expect(list.items[0]).toMatchObject({ metadata: { name: 'web' }, status: { phase: 'Running' } })
    const timings = (await host.machine('web')).status?.bootTimings
    expect(timings).toMatchObject({ spawnedMs: expect.any(Number), sshMs: expect.any(Number) })
  })

  test('whose agent dies is reached by SSH, and by the agent again when that is back', async () => {
    const connected = (machine: VirtualMachine) =>
      machine.status?.conditions?.find(at => at.type === 'AgentConnected')?.status
    // init starts it again and again; what can't be executed does not start.
    const agent = (mode: string) =>
      host.must('ssh', 'web', '--', `chmod ${mode} /etc/service/agent; killall qemu-ga || true`)
    await agent('-x')
    await host.untilMachine('web', at => connected(at) === 'False')
    expect(await host.must('exec', 'web', '--', 'echo', "it's me")).toBe("it's me\n")
    await agent('+x')
    await host.untilMachine('web', at => connected(at) === 'True')
  })

  test('does not notice that its daemon was killed', async () => {
    const before = onlyPid()
    const session = spawn(
      join(checkout, 'bin/macfleet'),
      [
        '--socket',
        host.host.socket,
        'ssh',
        'web',
        '--',
        'while true; do echo tick; sleep 0.1; done',
      ],
      { env: { ...process.env, MACFLEET_CONFIG_DIR: join(host.folder, 'config') } },
    )
    let ticks = 0
    session.stdout.on('data', bytes => {
      ticks += String(bytes).split('tick').length - 1
    })
    try {
      await until('the session ticks', () => (ticks > 0 ? true : undefined))
      await host.kill()
      const ticksAtKill = ticks
      const beganMs = performance.now()
      await host.start()
      await host.untilMachine('web', isReady, 10_000)
      expect(performance.now() - beganMs).toBeLessThan(10_000)
      expect(onlyPid()).toBe(before)
      await until('the session goes on', () => (ticks > ticksAtKill + 3 ? true : undefined))
      expect(session.exitCode).toBeNull()
    } finally {
      session.kill()
    }
    expect(restarts(await host.machine('web'))).toBe(0)
  })

  test('stops and starts, and keeps its port and its disk', async () => {
    await host.must(
      'exec',
      'web',
      '--',
      'sh',
      '-c',
      'echo kept | dd of=/dev/vda bs=512 seek=100000 conv=fsync',
    )
    const port = portOf(await host.machine('web'))
    await host.must('stop', 'web', '--wait')
    expect(qemuPids(host)).toEqual([])
    expect((await host.machine('web')).status?.phase).toBe('Stopped')
    await host.must('start', 'web', '--wait')
    expect(portOf(await host.machine('web'))).toBe(port)
    const read = 'dd if=/dev/vda bs=512 skip=100000 count=1 2>/dev/null | head -c 4'
    await host.untilMachine('web', at => at.status?.address !== undefined)
    expect(await host.must('exec', 'web', '--', 'sh', '-c', read)).toBe('kept')
  })

  test('is suspended, resumed and restarted', async () => {
    const before = onlyPid()
    await host.must('suspend', 'web', '--wait')
    expect((await host.machine('web')).status?.phase).toBe('Suspended')
    await host.must('resume', 'web', '--wait')
    expect(onlyPid()).toBe(before)
    await host.must('restart', 'web', '--wait')
    expect(onlyPid()).not.toBe(before)
  })

  test('that powers itself off stays off until it is started', async () => {
    await host.must('ssh', 'web', '--', 'poweroff')
    const off = await host.untilMachine('web', at => at.status?.phase === 'Stopped')
    expect(lastExit(off)).toBe('GuestPoweredOff')
    expect(qemuPids(host)).toEqual([])
    await host.must('start', 'web', '--wait')
  })

  test('that panics is started again, and the reason is told', async () => {
    const before = restarts(await host.machine('web'))
    await host.macfleet('ssh', 'web', '--', 'echo c > /proc/sysrq-trigger')
    const back = await host.untilMachine('web', at => restarts(at) > before && isReady(at))
    expect(lastExit(back)).toBe('GuestPanicked')
  })

  test('whose QEMU dies is started again', async () => {
    const before = restarts(await host.machine('web'))
    process.kill(onlyPid(), 'SIGKILL')
    const back = await host.untilMachine('web', at => restarts(at) > before && isReady(at))
    expect(lastExit(back)).toBe('QemuDied')
    expect(back.status?.lastExit?.message).toContain('SIGKILL')
  })

  test('ends with the guardian, is seen to have ended and is started again', async () => {
    const before = restarts(await host.machine('web'))
    const qemu = identify(onlyPid())
    const guardian = host.processes().find(({ command }) => command.includes('guardian/serve.ts'))
    const identity = identify(guardian?.pid ?? 0)
    if (identity === undefined || qemu === undefined) throw new Error('there is no guardian')
    signalProcess(identity, 'SIGKILL')
    await until('QEMU is gone with it', () => (isAlive(qemu) ? undefined : true))
    const back = await host.untilMachine('web', at => restarts(at) > before && isReady(at))
    expect(lastExit(back)).toBe('GuardianLost')
    onlyPid()
  })

  test('goes on booting when the daemon is stopped in the middle of it', async () => {
    await host.must('run', 'micro', '--name', 'early', '--memory', '192Mi')
    await host.untilMachine('early', at => at.status?.bootTimings?.firmwareMs !== undefined)
    process.kill(host.host.pid, 'SIGTERM')
    await until('the daemon has ended', () => (identify(host.host.pid) ? undefined : true))
    await host.start()
    const early = await host.untilMachine('early', isReady)
    expect(restarts(early)).toBe(0)
    await host.must('delete', 'vm', 'early')
  })

  test('leaves no process, file or port behind when it is deleted', async () => {
    const machine = await host.machine('web')
    const port = portOf(machine)
    const { uid = '' } = machine.metadata
    expect(await canConnect(port)).toBe(true)
    await host.must('delete', 'vm', 'web')
    expect(qemuPids(host)).toEqual([])
    expect(await canConnect(port)).toBe(false)
    expect(existsSync(join(host.host.dataDir, 'guests', uid))).toBe(false)
    expect(readdirSync(join(host.host.dataDir, 'guests'))).toEqual([])
    expect(readdirSync(join(host.host.runDir, 'guests'))).toEqual([])
    expect((await host.macfleet('get', 'vm', 'web')).code).toBe(4)
    expect(await host.must('image', 'inspect', 'micro')).not.toContain('default/web')
  })

  test('is deleted when its time is over', async () => {
    await host.must('run', 'micro', '--name', 'short', '--memory', '192Mi', '--ttl', '1s')
    await until('it is gone', async () =>
      (await host.macfleet('get', 'vm', 'short')).code === 4 ? true : undefined,
    )
    expect(qemuPids(host)).toEqual([])
  })

  test('comes in tens: apply starts them all, delete ends them all', async () => {
    const names = Array.from({ length: 10 }, (_, index) => `many-${index}`)
    const manifest = join(host.folder, 'ten.yaml')
    const document = (name: string) =>
      [
        'apiVersion: macfleet.dev/v1',
        'kind: VirtualMachine',
        `metadata: { name: ${name}, labels: { group: many } }`,
        'spec: { image: micro, memory: 128Mi, cpu: 100m, ports: [{ guestPort: 22 }] }',
      ].join('\n')
    writeFileSync(manifest, names.map(document).join('\n---\n'))
    expect(await host.must('apply', '-f', manifest)).toContain('many-9 created')
    for (const name of names) await host.untilMachine(name, isReady, 150_000)
    expect(qemuPids(host)).toHaveLength(10)
    expect(await host.must('apply', '-f', manifest)).toContain('many-9 unchanged')
    await host.must('delete', '-f', manifest)
    expect(qemuPids(host)).toEqual([])
  }, 200_000)
})
