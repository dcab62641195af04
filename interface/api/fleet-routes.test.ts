import { afterEach, beforeEach, expect, test } from 'vitest'
import { machineBody, machines, startTestApi, type TestApi } from '../../test/support/api.ts'

let api: TestApi
beforeEach(async () => {
  api = await startTestApi()
})
afterEach(() => api.close())

test('says how the fleet is, and begins to make one', async () => {
  const before = await api.request('GET', '/fleet')
  expect(before).toMatchObject({ code: 200, json: { mode: 'single', host: 'mac-1' } })
  const begun = await api.request('POST', '/fleet/init', { body: {} })
  expect(begun).toMatchObject({ code: 202, json: { mode: 'fleet', leader: 'mac-1' } })
  expect(await api.request('POST', '/fleet/leave')).toMatchObject({ code: 202 })
})

test('tokens are made, listed without their secret, and revoked', async () => {
  const body = { ttlMs: 60_000, uses: 3, rack: 'r1' }
  const made = await api.request('POST', '/fleet/tokens', { body })
  expect(made).toMatchObject({ code: 201, json: { usesLeft: 3, token: 'mf1.t1.secret' } })
  const list = await api.request('GET', '/fleet/tokens')
  expect(list.json.items).toHaveLength(1)
  expect(list.text).not.toContain('secret')
  expect(await api.request('DELETE', '/fleet/tokens/t1')).toMatchObject({ code: 200 })
  expect(await api.request('DELETE', '/fleet/tokens/t1')).toMatchObject({ code: 404 })
})

test.each([
  ['POST', '/fleet/join', {}, 400],
  ['POST', '/fleet/join', { token: 'x'.repeat(10_000) }, 400],
  ['POST', '/fleet/join', { token: 'x', more: 1 }, 400],
  ['POST', '/fleet/tokens', { uses: 0 }, 400],
  ['POST', '/fleet/tokens', [], 400],
  ['POST', '/fleet/tokens', { rack: 'r1\u001b[2J' }, 400],
  ['POST', '/fleet/init', { address: 1 }, 400],
  ['POST', '/fleet/backup', {}, 400],
  ['PUT', '/fleet/restore', undefined, 400],
  ['POST', '/fleet/hosts/mac-9/approve', {}, 404],
  ['POST', `/fleet/hosts/${encodeURIComponent('../x')}/forget`, {}, 404],
  ['DELETE', '/fleet', undefined, 405],
])('refuses %s %s %j', async (method, path, body, code) => {
  const answer = await api.request(method, path, body === undefined ? {} : { body })
  expect(answer).toMatchObject({ code, json: { kind: 'Status' } })
})

test('a host with dots in its name can be let in and put out too', async () => {
  for (const verb of ['approve', 'remove', 'forget']) {
    const { json } = await api.request('POST', `/fleet/hosts/mac-9.lan/${verb}`)
    expect(json.message).toContain('host')
    expect(json.message).toContain('mac-9.lan')
  }
})

test('a backup is streamed, and goes back with its passphrase', async () => {
  const sealed = await api.request('POST', '/fleet/backup', { body: { passphrase: 'geheim' } })
  expect(sealed.text).toBe('sealed with 6')
  const restore = async (passphrase: string) => {
    const secret = Buffer.from(passphrase).toString('base64')
    const headers = {
      'content-type': 'application/octet-stream',
      'x-macfleet-passphrase': secret,
    }
    const { json } = await api.request('PUT', '/fleet/restore', { body: sealed.text, headers })
    return json.transition.state
  }
  expect([await restore('geheim'), await restore('falsch!')]).toEqual(['done', 'failed'])
})

test('explains a machine, also one that is not there', async () => {
  await api.request('POST', machines(), { body: machineBody('web', { cpu: 2 }) })
  const there = await api.request('GET', `${machines()}/web/explain`)
  expect(there.json).toMatchObject({ best: 'mac-1' })
  const body = machineBody('new', { cpu: 9 })
  const thought = await api.request('POST', `${machines()}/new/explain`, { body })
  expect(thought.json.hosts[1].objections).toEqual(['wants 9 cores, 0 are free'])
  expect(await api.request('GET', `${machines()}/new`)).toMatchObject({ code: 404 })
  const wrong = machineBody('new', { cpu: -1 })
  expect(await api.request('POST', `${machines()}/new/explain`, { body: wrong })).toMatchObject({
    code: 422,
  })
})
