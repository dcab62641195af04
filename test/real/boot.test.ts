import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { checkout } from '../../agent/dev/local-host.ts'
import { createTestHost, type TestHost } from '../support/host.ts'

const guests = join(checkout, '.macfleet/guests')

let host: TestHost
beforeAll(async () => {
  host = await createTestHost()
})
afterAll(() => host?.remove())

const run = (image: string, ...more: string[]) =>
  host.must('run', image, '--name', image, '--memory', '256Mi', '--wait', ...more)

test('an image boots its own kernel, with its own command line', async () => {
  await host.must(
    ...['image', 'import', join(guests, 'micro.raw'), '--name', 'direct'],
    ...['--kernel', join(guests, 'vmlinuz'), '--initrd', join(guests, 'initrd')],
    ...['--command-line', 'console=ttyS0 quiet macfleet.test=direct'],
  )
  await run('direct')
  expect(await host.must('ssh', 'direct', '--', 'cat', '/proc/cmdline')).toContain(
    'macfleet.test=direct',
  )
  await host.must('delete', 'vm', 'direct')
})

test('UEFI boots from disk, and keeps its variables in a file of the machine', async () => {
  const disk = join(guests, 'micro.raw')
  await host.must('image', 'import', disk, '--name', 'uefi', '--firmware', 'uefi')
  await run('uefi')
  expect(await host.must('ssh', 'uefi', '--', 'ls', '/sys/firmware')).toContain('efi')
  await host.must('restart', 'uefi', '--wait')
  expect(await host.must('ssh', 'uefi', '--', 'ls', '/sys/firmware')).toContain('efi')
  await host.must('delete', 'vm', 'uefi')
})

test('a larger disk is seen by the guest, and user data is obeyed', async () => {
  const userData = join(host.folder, 'user-data')
  writeFileSync(userData, '#cloud-config\nruncmd:\n  - echo obeyed > /run/user-data-was\n')
  await host.must('image', 'import', join(guests, 'micro.raw'), '--name', 'large')
  await run('large', '--disk', '1Gi', '--user-data', userData)
  const sectors = await host.must('ssh', 'large', '--', 'cat', '/sys/class/block/vda/size')
  expect(Number(sectors) * 512).toBe(2 ** 30)
  expect(await host.must('ssh', 'large', '--', 'cat', '/run/user-data-was')).toBe('obeyed\n')
  await host.must('delete', 'vm', 'large')
})
