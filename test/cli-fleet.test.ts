import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { hostKind } from '../resources/host.ts'
import { imageKind } from '../resources/image.ts'
import { startTestApi, type TestApi } from './support/api.ts'
import { createTestCommandLine, type TestCommandLine } from './support/command-line.ts'

let api: TestApi
let cli: TestCommandLine
beforeAll(async () => {
  api = await startTestApi()
  cli = createTestCommandLine(api.socketPath)
  const apiVersion = 'macfleet.dev/v1'
  const spec = { schedulable: true }
  await api.objects.create(hostKind, {
    apiVersion,
    kind: 'Host',
    metadata: { name: 'mac-1' },
    spec,
  })
  await api.objects.create(imageKind, {
    apiVersion,
    kind: 'Image',
    metadata: { name: 'micro', namespace: 'default' },
    spec: { arch: 'x86_64', machine: 'linux', firmware: 'bios', pinned: false },
  })
})
afterAll(async () => {
  cli?.remove()
  await api?.close()
})

async function must(...args: string[]): Promise<string> {
  const result = await cli.here(...args)
  expect(result, args.join(' ')).toMatchObject({ code: 0 })
  return result.stdout
}

describe('cluster', () => {
  test('init makes a fleet, status shows it', async () => {
    expect(await must('cluster', 'status')).toContain('mac-1 is a single host')
    expect(await must('cluster', 'init')).toBe('mac-1 is a fleet now\n')
    const shown = await must('cluster', 'status')
    expect(shown).toContain('Fleet f1, led by mac-1')
    expect(shown).toMatch(/mac-1 \* +Ready +- +10\.0\.0\.1 +leader/)
    const { members } = JSON.parse(await must('cluster', 'status', '-o', 'json'))
    expect(members).toHaveLength(1)
  })

  test('tokens', async () => {
    expect(await must('cluster', 'token', 'create', '--uses', '3')).toBe('mf1.t1.secret\n')
    expect(await must('cluster', 'token', 'list')).toMatch(/t1 +3/)
    expect(await must('cluster', 'token', 'revoke', 't1')).toBe('token t1 revoked\n')
    expect(await cli.here('cluster', 'token', 'create', '--uses', 'x')).toMatchObject({ code: 2 })
  })

  test('join tells what went wrong, and takes the token from standard input', async () => {
    const failed = await cli.here('cluster', 'join', 'bad')
    expect(failed).toMatchObject({ code: 1 })
    expect(failed.stderr).toContain('join did not succeed: the token is of another fleet')
    expect(await cli.feed('good\n', 'cluster', 'join', '-')).toMatchObject({ code: 0 })
  })

  test('a backup goes to a file and back', async () => {
    const [secret, file] = [join(cli.folder, 'secret'), join(cli.folder, 'backup')]
    writeFileSync(secret, 'geheim\n')
    await must('cluster', 'backup', file, '--passphrase-file', secret)
    expect(readFileSync(file, 'utf8')).toBe('sealed with 6')
    await must('cluster', 'restore', file, '--passphrase-file', secret)
    writeFileSync(secret, 'wrong')
    const args = ['cluster', 'restore', file, '--passphrase-file', secret]
    expect(await cli.here(...args)).toMatchObject({ code: 1 })
  })
})

describe('host', () => {
  const spec = async () => (await api.objects.get(hostKind, { name: 'mac-1' })).spec

  test('cordon, drain and uncordon', async () => {
    await must('host', 'cordon', 'mac-1')
    expect(await spec()).toEqual({ schedulable: false })
    await must('host', 'drain', 'mac-1')
    expect(await spec()).toEqual({ schedulable: false, drain: true })
    await must('host', 'uncordon', 'mac-1')
    expect(await spec()).toEqual({ schedulable: true })
  })

  test('approve, remove, and forget only when somebody vouches for it', async () => {
    expect(await must('host', 'approve', 'mac-1')).toBe('host.macfleet.dev/mac-1 approved\n')
    expect(await cli.here('host', 'approve', 'mac-9')).toMatchObject({ code: 4 })
    expect(await cli.here('host', 'forget', 'mac-1')).toMatchObject({ code: 2 })
    await must('host', 'forget', 'mac-1', '--powered-off')
  })
})

describe('explain', () => {
  test('shows every host', async () => {
    await must('run', 'micro', '--name', 'web', '--no-ssh')
    const shown = await must('explain', 'vm', 'web')
    expect(shown).toContain('web would go to mac-1.')
    expect(shown).toMatch(/mac-2 .*wants 1 cores, 0 are free/)
    expect(JSON.parse(await must('explain', 'vm', 'web', '-o', 'json')).best).toBe('mac-1')
  })

  test('a dry run creates nothing', async () => {
    const args = ['run', 'micro', '--name', 'dry', '--no-ssh', '--on-host-loss', 'Replace']
    const shown = await must(...args, '--host-selector', 'rack=r1', '--priority', '5', '--dry-run')
    expect(shown).toContain('dry would go to mac-1.')
    expect(await cli.here('get', 'vm', 'dry')).toMatchObject({ code: 4 })
  })
})

test('what is old is shown with a warning on standard error, once', async () => {
  const old = await startTestApi({ staleSince: () => '2026-01-02T03:04:05.000Z' })
  const reader = createTestCommandLine(old.socketPath)
  try {
    const { code, stdout, stderr } = await reader.here('get', 'hosts,vms')
    expect([code, stdout]).toEqual([0, ''])
    expect(stderr.match(/^warning: The store can't be reached since 2026/gm)).toHaveLength(1)
  } finally {
    reader.remove()
    await old.close()
  }
})
