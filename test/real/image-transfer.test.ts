import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Image } from '../../resources/image.ts'
import { microGuestIsBuilt } from '../support/demo-guest.ts'
import { createTestHost, isReady, readApi, type TestHost, until } from '../support/host.ts'
import { skopeo, startTestRegistry, type TestRegistry } from '../support/registry.ts'

const guests = join(import.meta.dirname, '../../.macfleet/guests')
let registry: TestRegistry
let first: TestHost
let second: TestHost
const small = ['--cpu', '100m', '--memory', '128Mi']

const readImage = (host: TestHost, name: string) =>
  readApi<Image>(host.host.socket, `/apis/macfleet.dev/v1/namespaces/default/images/${name}`)

beforeAll(async () => {
  registry = await startTestRegistry()
  const settings = { registries: { [registry.host]: { plainHttp: true } } }
  first = await createTestHost(settings)
  second = await createTestHost(settings)
}, 60_000)
afterAll(async () => {
  await Promise.allSettled([first?.remove(), second?.remove()])
  await registry?.stop()
})

describe.runIf(microGuestIsBuilt)('an image through a registry', () => {
  test('is pushed by one host, and pulled and run by another', async () => {
    await first.must(
      ...['image', 'import', join(guests, 'micro.raw'), '--name', 'micro'],
      ...['--kernel', join(guests, 'vmlinuz'), '--initrd', join(guests, 'initrd')],
      ...['--command-line', 'console=ttyS0 quiet no_timer_check'],
    )
    const reference = `${registry.host}/team/micro:1`
    expect(await first.must('image', 'push', 'micro', reference)).toContain(`${reference}@sha256:`)
    const inspected = JSON.parse(
      await skopeo(['inspect', '--tls-verify=false', `docker://${reference}`]),
    )
    expect(inspected).toMatchObject({ Architecture: 'amd64' })
    const pulled = await second.must('image', 'pull', reference)
    expect(pulled).toContain('/micro-1 pulled')
    const [here, there] = [await readImage(first, 'micro'), await readImage(second, 'micro-1')]
    expect(there.status?.digest).toBe(here.status?.digest)
    expect(there.status).toMatchObject({
      phase: 'Ready',
      hasKernel: true,
      hosts: [expect.any(String)],
    })
    await second.must('run', 'micro-1', '--name', 'vm', ...small)
    await second.untilMachine('vm', isReady)
    expect(await second.must('ssh', 'vm', '--', 'echo', 'hello')).toBe('hello\n')
  })

  test('is fetched when a machine needs it', async () => {
    await second.must('delete', 'vm', 'vm')
    await second.must('image', 'rm', 'micro-1')
    await until('its content is gone', async () =>
      (await readImage(second, 'micro-1').catch(() => undefined)) === undefined ? true : undefined,
    )
    await second.must('image', 'pull', `${registry.host}/team/micro:1`, '--name', 'lazy', '--lazy')
    await second.must('run', 'lazy', '--name', 'vm', ...small)
    await second.untilMachine('vm', isReady)
    await until('all of it has come', async () =>
      (await readImage(second, 'lazy')).status?.hosts?.length === 1 ? true : undefined,
    )
    expect(await second.must('ssh', 'vm', '--', 'echo', 'hello')).toBe('hello\n')
  })

  test('a second push moves no layer, and what is wrong is said', async () => {
    const again = await first.macfleet('image', 'push', 'micro', `${registry.host}/team/micro:2`)
    expect(again.stderr).toContain('0 chunks new')
    const nowhere = await second.macfleet('image', 'pull', `${registry.host}/team/none:1`)
    expect(nowhere.code).not.toBe(0)
    expect(nowhere.stderr).toContain('team/none')
    const twice = await second.macfleet('image', 'push', 'none', `${registry.host}/team/x`)
    expect(twice.stderr).toContain('none')
  })
})
