import { spawn } from 'node:child_process'
import { chmodSync, mkdirSync, truncateSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { checkout } from '../../agent/dev/local-host.ts'
import { runCommand } from '../../base/command.ts'
import type { VirtualMachine } from '../../resources/virtual-machine.ts'
import { createTestHost, isReady, qemuPids, runCli, type TestHost, until } from '../support/host.ts'

const micro = join(checkout, '.macfleet/guests/micro.raw')

const manifest = (name: string, spec: string) => `apiVersion: macfleet.dev/v1
kind: VirtualMachine
metadata: { name: ${name} }
spec: { ${spec} }
`
const readyReason = (machine: VirtualMachine) =>
  machine.status?.conditions?.find(at => at.type === 'Ready')?.reason
const readyMessage = (machine: VirtualMachine) =>
  machine.status?.conditions?.find(at => at.type === 'Ready')?.message

describe('a host refuses, by name and with what to do', () => {
  let host: TestHost
  beforeAll(async () => {
    host = await createTestHost()
    await host.must('image', 'import', micro, '--name', 'micro')
  })
  afterAll(() => host?.remove())

  const apply = (text: string) => {
    const path = join(host.folder, 'refused.yaml')
    writeFileSync(path, text)
    return host.macfleet('apply', '-f', path)
  }

  test.each([
    ['image: micro, cpuu: 2', 'spec.cpuu: unknown field; did you mean cpu?'],
    ['image: micro, memory: [1]', 'spec.memory: must be a quantity'],
    ['image: micro, memory: 1Ki', 'spec.memory: must be between 16Mi and 8Ti'],
    ['image: micro, disk: 99Ti', 'spec.disk: must be between 1Mi and 8Ti'],
    ['image: micro, ports: [{ guestPort: 70000 }]', 'spec.ports[0].guestPort'],
    ['cpu: 1', 'spec.image'],
  ])('spec { %s }', async (spec, sentence) => {
    const { code, stderr } = await apply(manifest('wrong', spec))
    expect(stderr).toContain(sentence)
    expect(code).toBe(1)
    expect((await host.macfleet('get', 'vm', 'wrong')).code).toBe(4)
  })

  test('an image that is not there', async () => {
    const { code, stderr } = await host.macfleet('run', 'nothing', '--name', 'a')
    expect(code).toBe(4)
    expect(stderr).toContain('no image nothing')
    await apply(manifest('waits', 'image: nothing'))
    const machine = await host.untilMachine('waits', at => readyReason(at) === 'ImageUnknown')
    expect(machine.status?.phase).toBe('Pending')
    await host.must('delete', 'vm', 'waits')
  })

  test('a name that is taken', async () => {
    await apply(manifest('taken', 'image: micro, powerState: Stopped'))
    const { code, stderr } = await host.macfleet('run', 'micro', '--name', 'taken')
    expect(code).toBe(1)
    expect(stderr).toContain('already exists')
    await host.must('delete', 'vm', 'taken')
  })

  test('a disk that is smaller than its image', async () => {
    await apply(manifest('small', 'image: micro, disk: 1Mi'))
    const machine = await host.untilMachine('small', at => readyReason(at) === 'DiskTooSmall')
    expect(readyMessage(machine)).toContain('too small for an image')
    await host.must('delete', 'vm', 'small')
  })

  test('a port that somebody has', async () => {
    const server = createServer()
    await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
    const address = server.address()
    const port = typeof address === 'object' && address !== null ? address.port : 0
    try {
      await apply(manifest('port', `image: micro, ports: [{ guestPort: 22, hostPort: ${port} }]`))
      const machine = await host.untilMachine('port', at => readyReason(at) === 'PortTaken')
      expect(readyMessage(machine)).toContain(String(port))
    } finally {
      server.close()
    }
    await host.must('delete', 'vm', 'port')
  })

  test.each([
    [
      'hostSelector: { rack: nowhere }',
      'Unschedulable',
      'the label rack must be nowhere, it has none',
    ],
    ['machine: macos', 'MachineUnsupported', 'can not start machines of the shape macos'],
  ])('what this host is not for: %s', async (spec, reason, sentence) => {
    await apply(manifest('elsewhere', `image: micro, ${spec}`))
    const machine = await host.untilMachine('elsewhere', at => readyReason(at) === reason)
    expect(readyMessage(machine)).toContain(sentence)
    expect(machine.status).toMatchObject({ phase: 'Pending' })
    expect(machine.status?.host).toBeUndefined()
    await host.must('delete', 'vm', 'elsewhere')
  })

  test('no image for the sake of a machine that could not start and is gone', async () => {
    await host.must('image', 'import', micro, '--name', 'spare', '--arch', 'x86_64')
    await apply(manifest('small', 'image: spare, disk: 1Mi'))
    await host.untilMachine('small', at => readyReason(at) === 'DiskTooSmall')
    await host.must('delete', 'vm', 'small')
    await host.must('image', 'rm', 'spare')
  })

  test('an image for another processor', async () => {
    await host.must('image', 'import', micro, '--name', 'arm', '--arch', 'aarch64')
    await apply(manifest('arm', 'image: arm'))
    const machine = await host.untilMachine('arm', at => readyReason(at) === 'Unschedulable')
    expect(readyMessage(machine)).toContain('the machine is for aarch64')
    await host.must('delete', 'vm', 'arm')
    await host.must('image', 'rm', 'arm')
  })

  test('more memory than it has, until there is room', async () => {
    await apply(manifest('huge', 'image: micro, memory: 4Ti'))
    const machine = await host.untilMachine('huge', at => readyReason(at) === 'Unschedulable')
    expect(readyMessage(machine)).toContain('wants 4Ti of memory')
    await apply(manifest('huge', 'image: micro, memory: 128Mi'))
    await host.untilMachine('huge', isReady)
    await host.must('delete', 'vm', 'huge')
  })

  test('an image in use, with who uses it', async () => {
    await host.must('run', 'micro', '--name', 'user', '--memory', '128Mi')
    await host.untilMachine('user', at => at.status?.phase === 'Running')
    const { code, stderr } = await host.macfleet('image', 'rm', 'micro')
    expect(code).toBe(1)
    expect(stderr).toContain('default/user')
    await host.must('delete', 'vm', 'user')
  })

  test('a truncated qcow2', async () => {
    const path = join(host.folder, 'cut.qcow2')
    await runCommand('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', micro, path], {
      timeoutMs: 30_000,
    })
    truncateSync(path, 400_000)
    const { code, stderr } = await host.macfleet('image', 'import', path, '--name', 'cut')
    expect(code).toBe(1)
    expect(stderr).toContain('not accepted as an image')
    expect(JSON.parse(await host.must('image', 'list', '-o', 'json')).items).not.toContainEqual(
      expect.objectContaining({
        status: expect.objectContaining({ phase: 'Ready', format: 'qcow2' }),
      }),
    )
  })

  test('a second daemon on the same data folder', async () => {
    const args = ['--data-dir', host.host.dataDir, '--run-dir', join(host.folder, 'other')]
    const second = await runCli(join(checkout, 'bin/macfleetd'), args, process.env)
    expect(second.code).toBe(1)
    expect(second.stderr).toContain('another process has the store')
  })

  test('an import whose client was killed, and takes the image at the next try', async () => {
    const big = join(host.folder, 'big.raw')
    await runCommand('sh', ['-c', `head -c 300M /dev/urandom > ${big}`], { timeoutMs: 30_000 })
    const cli = spawn(
      join(checkout, 'bin/macfleet'),
      ['--socket', host.host.socket, 'image', 'import', big, '--name', 'big'],
      { stdio: 'ignore' },
    )
    await until('it is being imported', async () => {
      const { code, stdout } = await host.macfleet('get', 'image', 'big', '-o', 'json')
      return code === 0 && JSON.parse(stdout).status?.phase === 'Importing' ? true : undefined
    })
    cli.kill('SIGKILL')
    await until('its failure is told', async () => {
      const image = JSON.parse(await host.must('get', 'image', 'big', '-o', 'json'))
      return image.status?.phase === 'Failed' ? true : undefined
    })
    await host.must('image', 'import', big, '--name', 'big')
    await host.must('image', 'verify', 'big')
    await host.must('image', 'rm', 'big')
  })
})

describe('a host on which something is wrong', () => {
  test('tells what QEMU said that ends at once', async () => {
    const bin = join('/tmp', `mf-bin-${process.pid}`)
    mkdirSync(bin, { recursive: true })
    const qemu = join(bin, 'qemu-system-x86_64')
    writeFileSync(
      qemu,
      '#!/bin/sh\n[ "$1" = --version ] && echo "QEMU emulator version 7.2.22" && exit\n' +
        'echo "qemu: the machine is out of order" >&2; exit 1\n',
    )
    chmodSync(qemu, 0o755)
    const path = process.env['PATH']
    process.env['PATH'] = `${bin}:${path}`
    let host: TestHost | undefined
    try {
      host = await createTestHost()
      await host.must('image', 'import', micro, '--name', 'micro')
      await host.must('run', 'micro', '--name', 'broken', '--restart-policy', 'Never')
      const machine = await host.untilMachine('broken', at => at.status?.phase === 'Failed')
      expect(machine.status?.lastExit).toMatchObject({ reason: 'QemuDied' })
      expect(readyMessage(machine)).toContain('the machine is out of order')
    } finally {
      process.env['PATH'] = path
      await host?.remove()
      await runCommand('rm', ['-r', bin], { timeoutMs: 5000 })
    }
  })

  test('does not start with an accelerator that does not work', async () => {
    await expect(createTestHost({ accelerator: 'kvm' })).rejects.toThrow(/KVM/i)
  })

  test('with a full data folder takes nothing new, and goes on', async () => {
    const host = await createTestHost({ diskReserve: '8Ti' })
    try {
      const { code, stderr } = await host.macfleet('image', 'import', micro, '--name', 'micro')
      expect(stderr).toContain('is full')
      expect(code).toBe(1)
      const path = join(host.folder, 'none.yaml')
      writeFileSync(path, manifest('none', 'image: micro'))
      await host.must('apply', '-f', path)
      const machine = await host.untilMachine('none', at => readyReason(at) === 'HostDiskFull')
      expect(machine.status?.phase).toBe('Pending')
      expect(qemuPids(host)).toEqual([])
      expect(await host.must('get', 'hosts')).toContain('Ready')
    } finally {
      await host.remove()
    }
  })
})
