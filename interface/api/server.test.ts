import { execFile } from 'node:child_process'
import { existsSync, statSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { type AddressInfo, connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import {
  machineBody,
  machines,
  serveTest,
  startTestApi,
  type TestApi,
} from '../../test/support/api.ts'

describe('what the server says of itself', () => {
  let api: TestApi
  let broken = false
  beforeEach(async () => {
    broken = false
    const guardian = async () => {
      if (broken) throw new Error('gone')
    }
    api = await startTestApi({ readiness: { store: async () => 1, guardian } })
  })
  afterEach(() => api.close())

  test('health', async () => {
    expect(await api.request('GET', '/healthz')).toMatchObject({ code: 200, text: 'ok' })
    expect(await api.request('GET', '/readyz')).toMatchObject({ code: 200, text: 'ok' })
    const verbose = await api.request('GET', '/readyz?verbose')
    expect(verbose.text).toBe('[+]store ok\n[+]guardian ok\nreadyz check passed\n')
    broken = true
    expect(await api.request('GET', '/readyz')).toMatchObject({
      code: 503,
      text: '[+]store ok\n[-]guardian failed: gone\nreadyz check failed\n',
    })
  })

  test('discovery', async () => {
    const get = async (path: string) => (await api.request('GET', path)).json
    expect(await get('/version')).toMatchObject({ major: '1', macfleetVersion: '0.0.0' })
    expect(await get('/api')).toMatchObject({ kind: 'APIVersions', versions: ['v1'] })
    expect(await get('/apis')).toMatchObject({ groups: [{ name: 'macfleet.dev' }] })
    expect(await get('/apis/macfleet.dev')).toMatchObject({
      kind: 'APIGroup',
      preferredVersion: { groupVersion: 'macfleet.dev/v1', version: 'v1' },
    })
    const list = await get('/apis/macfleet.dev/v1')
    expect(list).toMatchObject({ kind: 'APIResourceList', groupVersion: 'macfleet.dev/v1' })
    expect(list.resources).toContainEqual(
      expect.objectContaining({ name: 'virtualmachines', shortNames: ['vm', 'vms'] }),
    )
    expect((await get('/api/v1')).resources[0]).toMatchObject({ name: 'namespaces' })
  })

  test('figures, with only so many labels', async () => {
    for (let index = 0; index < 5; index++) {
      await api.request('GET', `/nowhere/${index}`)
      await api.request('GET', `${machines()}/m${index}`)
    }
    const { text, headers } = await api.request('GET', '/metrics')
    expect(headers['content-type']).toContain('text/plain')
    expect(text).toContain('macfleet_api_requests_total{method="GET",route="none",code="404"} 5')
    const route = '/apis/macfleet.dev/v1/namespaces/:namespace/virtualmachines/:name'
    expect(text).toContain(`{method="GET",route="${route}",code="404"} 5`)
    expect(text).toContain('macfleet_api_watches 0')
  })
})

describe('the socket', () => {
  let folder: string
  let path: string
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'macfleet-socket-'))
    path = join(folder, 'm.sock')
  })
  afterEach(() => rm(folder, { recursive: true, force: true }))

  test('is for its owner and group only, and goes away with the server', async () => {
    const server = await serveTest(path)
    expect(statSync(path).mode & 0o777).toBe(0o660)
    await server.close()
    expect(existsSync(path)).toBe(false)
  })

  test('is taken over from a dead daemon, never from a living one', async () => {
    const listen = `require('net').createServer().listen(${JSON.stringify(path)}, die)`
    const script = `const die = () => process.kill(process.pid, 9); ${listen}`
    await promisify(execFile)(process.execPath, ['-e', script]).catch(() => {})
    expect(statSync(path).isSocket()).toBe(true)
    const first = await serveTest(path)
    await expect(serveTest(path)).rejects.toMatchObject({ code: 'socketTaken' })
    await first.close()
    await writeFile(path, 'precious')
    await expect(serveTest(path)).rejects.toMatchObject({ code: 'socketTaken' })
    const long = join(folder, 'x'.repeat(120))
    await expect(serveTest(long)).rejects.toMatchObject({ code: 'socketPathTooLong' })
  })
})

describe.skipIf(!existsSync('/usr/bin/kubectl'))('kubectl', () => {
  let api: TestApi
  let home: string
  let close: () => void
  let server: string
  beforeEach(async () => {
    api = await startTestApi()
    home = await mkdtemp(join(tmpdir(), 'macfleet-kubectl-'))
    // kubectl speaks TCP only: this hands its bytes on.
    const proxy = createServer(socket => {
      const upstream = connect(api.socketPath)
      socket.pipe(upstream).pipe(socket)
      socket.on('error', () => upstream.destroy())
      upstream.on('error', () => socket.destroy())
    })
    await new Promise<void>(resolve => proxy.listen(0, '127.0.0.1', resolve))
    close = () => proxy.close()
    server = `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`
  })
  afterEach(async () => {
    close()
    await api.close()
    await rm(home, { recursive: true, force: true })
  })

  const kubectl = async (...args: string[]) => {
    const env = { PATH: process.env['PATH'] ?? '', HOME: home, KUBECONFIG: '/dev/null' }
    const options = { env, timeout: 30_000 }
    return (await promisify(execFile)('/usr/bin/kubectl', [`--server=${server}`, ...args], options))
      .stdout
  }

  test('gets, describes, labels, patches and deletes', async () => {
    await api.request('POST', machines(), { body: machineBody('a') })
    await api.request('POST', machines('ab'), { body: machineBody('b') })
    const table = await kubectl('get', 'vms')
    expect(table.split('\n')[0]).toMatch(/^NAME +PHASE +READY +HOST/)
    expect(table).toMatch(/^a +Pending/m)
    expect(await kubectl('get', 'vm', '-A', '-o', 'name')).toBe(
      'virtualmachine.macfleet.dev/b\nvirtualmachine.macfleet.dev/a\n',
    )
    await kubectl('label', 'vm', 'a', 'job=1')
    expect(await kubectl('get', 'vm', '-l', 'job=1', '-o', 'jsonpath={.items[*].spec.cpu}')).toBe(
      '1',
    )
    await kubectl('patch', 'vm', 'a', '--type=merge', '-p', '{"spec":{"cpu":2}}')
    expect(await kubectl('describe', 'vm', 'a')).toMatch(/Cpu: +2/)
    expect(await kubectl('delete', 'vm', 'a', '--wait=false')).toContain('deleted')
    expect(await kubectl('get', 'ns')).toMatch(/^default +Active/m)
  }, 60_000)
})
