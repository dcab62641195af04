import { afterEach, expect, test } from 'vitest'
import { machineBody, machines, startTestApi, type TestApi } from '../../test/support/api.ts'

let api: TestApi | undefined
afterEach(() => api?.close())

test('what is read while the store is away comes with a warning, nothing else', async () => {
  let since: string | undefined
  api = await startTestApi({ staleSince: () => since })
  const body = machineBody('a')
  expect((await api.request('POST', machines(), { body })).code).toBe(201)
  expect((await api.request('GET', machines())).headers['warning']).toBeUndefined()
  since = '2026-01-02T03:04:05.000Z'
  for (const path of [machines(), `${machines()}/a`, '/api/v1/namespaces']) {
    const { code, headers } = await api.request('GET', path)
    expect([code, headers['warning']]).toEqual([200, expect.stringContaining(since)])
    expect(headers['warning']).toMatch(/^299 - "The store can't be reached since [^"]*"$/)
  }
  for (const path of ['/fleet', '/readyz', `${machines()}/none`]) {
    expect((await api.request('GET', path)).headers['warning']).toBeUndefined()
  }
})
