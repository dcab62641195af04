import { connect } from 'node:net'
import fc from 'fast-check'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import type { Log } from '../../base/log.ts'
import { kinds } from '../../resources/kinds.ts'
import { validate } from '../../resources/validate.ts'
import { machineBody, machines, startTestApi, type TestApi } from '../../test/support/api.ts'
import { collectionPath } from './resource-routes.ts'

let api: TestApi
let logged: object[] = []
beforeEach(() => {
  logged = []
})
beforeAll(async () => {
  const note = (fields: object) => logged.push(fields)
  const log: Log = { debug: note, info: note, warn: note, error: note, child: () => log }
  api = await startTestApi({ limits: { requestBodyBytes: 20_000, requestBodyMs: 300 }, log })
  await api.request('POST', machines(), { body: machineBody('a') })
})
afterAll(() => api.close())

const json = { 'content-type': 'application/json' }
const yaml = { 'content-type': 'application/yaml' }
const merge = { 'content-type': 'application/merge-patch+json' }
const jsonPatch = { 'content-type': 'application/json-patch+json' }
const one = `${machines()}/a`
const bomb = `a: &a [x,x,x,x,x,x,x,x,x]\n${[...'bcdefghi']
  .map((name, at) => `${name}: &${name} [${Array(9).fill(`*${'abcdefghi'[at]}`)}]`)
  .join('\n')}`

describe('a request that is wrong gets a Status', () => {
  test.each<[number, string, string, unknown?, Record<string, string>?]>([
    [404, 'GET', '/'],
    [404, 'GET', '/nowhere?x=1'],
    [404, 'GET', '/apis/macfleet.dev/v1/pods'],
    [404, 'GET', '/apis/macfleet.dev/v2/hosts'],
    [404, 'GET', `${machines()}/%C3%A4`],
    [404, 'GET', `${machines()}/a%2F..%2Fb`],
    [400, 'GET', `${machines()}/${'x'.repeat(600)}`],
    [404, 'DELETE', `${machines()}/b`],
    [400, 'GET', `${machines()}/%ff`],
    [400, 'GET', '/apis/macfleet.dev/v1/namespaces/A%20B/virtualmachines'],
    [405, 'POST', one, machineBody('a')],
    [405, 'DELETE', machines()],
    [405, 'HEAD', '/healthz'],
    [405, 'POST', '/apis/macfleet.dev/v1/virtualmachines', machineBody('a')],
    [406, 'GET', one, undefined, { accept: 'text/html' }],
    [406, 'GET', one, undefined, { accept: 'application/json;as=Table;v=v1beta1;g=meta.k8s.io' }],
    [400, 'GET', `${machines()}?limit=-1`],
    [400, 'GET', `${machines()}?limit=many`],
    [400, 'GET', `${machines()}?limit=1&limit=2`],
    [400, 'GET', `${machines()}?continue=x`],
    [400, 'GET', `${machines()}?resourceVersion=new`],
    [400, 'GET', `${machines()}?resourceVersion=99999999999999999999`],
    [400, 'GET', `${machines()}?watch=true&resourceVersion=-1`],
    [400, 'GET', `${machines()}?watch=perhaps`],
    [400, 'GET', `${machines()}?labelSelector=a%3D%3D%3Db`],
    [400, 'GET', `${machines()}?labelSelector=${'a,'.repeat(100)}`],
    [400, 'GET', `${machines()}?fieldSelector=spec.image%3Dx`],
    [400, 'GET', `${machines()}?includeObject=All`, undefined, { accept: 'application/json' }],
    [400, 'POST', `${machines()}?dryRun=yes`, machineBody('b')],
    [400, 'POST', `${machines()}?fieldValidation=no`, machineBody('b')],
    [400, 'POST', machines()],
    [400, 'POST', machines(), '{"metadata":', json],
    [400, 'POST', machines(), '[]', json],
    [400, 'POST', machines(), '"x"', json],
    [400, 'POST', machines(), Buffer.from([0x22, 0xff, 0x22]), json],
    [400, 'POST', machines(), '['.repeat(9_000) + ']'.repeat(9_000), json],
    [400, 'POST', machines(), '{"__proto__":{"a":1}}', json],
    [400, 'POST', machines(), '{"spec":{"\\u005f_proto__":{"a":1}}}', json],
    [400, 'POST', machines(), '{"spec":{"image":"a","image":"b"}}', json],
    [400, 'POST', machines(), '{"metadata":5}', json],
    [400, 'POST', machines(), machineBody('b', {}, { namespace: 'ab' })],
    [400, 'POST', machines(), 'a: [', yaml],
    [400, 'POST', machines(), bomb, yaml],
    [400, 'POST', machines(), '['.repeat(5_000), yaml],
    [400, 'POST', machines(), 'a: 1\na: 2', yaml],
    [404, 'POST', machines('nowhere'), machineBody('b')],
    [409, 'POST', machines(), machineBody('a')],
    [413, 'POST', machines(), machineBody('b', { userData: 'x'.repeat(30_000) })],
    [413, 'POST', machines(), 'x'.repeat(3_000_000), json],
    [415, 'POST', machines(), 'a=b', { 'content-type': 'application/x-www-form-urlencoded' }],
    [415, 'POST', machines(), 'x', { 'content-type': 'nonsense;;;' }],
    [415, 'POST', machines(), 'x', { ...json, 'content-encoding': 'gzip' }],
    [415, 'PATCH', one, '{}', json],
    [415, 'PATCH', one, '{}', { 'content-type': 'application/strategic-merge-patch+json' }],
    [422, 'POST', machines(), machineBody('B')],
    [422, 'POST', machines(), { ...machineBody('b'), kind: 'Image' }],
    [422, 'POST', machines(), machineBody('b', {}, { finalizers: 5 })],
    [422, 'POST', machines(), machineBody('b', {}, { labels: [] })],
    [422, 'POST', machines(), { spec: {} }],
    [422, 'PUT', one, machineBody('a', { image: 'other' })],
    [400, 'PUT', one, machineBody('b')],
    [422, 'PUT', one, machineBody('a', {}, { finalizers: 'x' })],
    [422, 'PUT', `${one}/status`, { status: 5 }],
    [400, 'PATCH', one, '5', merge],
    [422, 'PATCH', one, '{"spec":null}', merge],
    [400, 'PATCH', one, '{"metadata":{"name":"b"}}', merge],
    [409, 'PATCH', one, '{"metadata":{"resourceVersion":"1"}}', merge],
    [400, 'PATCH', one, '{}', jsonPatch],
    [400, 'PATCH', one, '[{"op":"test","path":"/spec/image","value":"x"}]', jsonPatch],
    [400, 'PATCH', one, '[{"op":"replace","path":"","value":5}]', jsonPatch],
    [400, 'PATCH', one, '[{"op":"add","path":"/__proto__/x","value":5}]', jsonPatch],
    [400, 'DELETE', one, '[]', json],
    [400, 'DELETE', one, { gracePeriodSeconds: -1 }],
    [400, 'DELETE', one, { preconditions: { uid: 5 } }],
    [409, 'DELETE', one, { preconditions: { uid: 'other' } }],
    [400, 'DELETE', `${one}?gracePeriodSeconds=x`],
    [400, 'GET', `${one}/console`],
    [400, 'GET', `${one}/exec?command=a`],
    [400, 'GET', `${one}/log?tailLines=x`],
    [404, 'GET', `${machines()}/b/log`],
    [404, 'PUT', '/apis/macfleet.dev/v1/namespaces/a/images/x/content', 'x'],
  ])('%i %s %.80s', async (code, method, path, body, headers) => {
    const answer = await api.request(method, path, { body, ...(headers ? { headers } : {}) })
    const reason = answer.json?.message ?? answer.text
    expect([answer.code, reason]).toEqual([code, reason])
    if (method !== 'HEAD') {
      expect(answer.json).toMatchObject({ kind: 'Status', status: 'Failure', code, message: /./ })
      expect(answer.json.message).not.toContain('undefined')
    }
    // The same server goes on, and had nothing to say of faults of its own.
    expect((await api.request('GET', one)).code).toBe(200)
    expect(logged).toEqual([])
  })

  test('also when it is no HTTP, or never ends', async () => {
    const raw = (text: string) =>
      new Promise<string>((resolve, reject) => {
        const socket = connect(api.socketPath, () => socket.write(text))
        let answer = ''
        socket.on('data', chunk => {
          answer += chunk
          if (answer.includes('"code"')) socket.end()
        })
        socket.on('close', () => resolve(answer))
        socket.on('error', reject)
      })
    expect(await raw('nonsense\r\n\r\n')).toContain('"reason":"BadRequest"')
    const head = `POST ${machines()} HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{`
    expect(await raw(head)).toContain('"reason":"Timeout"')
  })
})

describe('a fault of ours', () => {
  test('is told without its stack, which goes to the log', async () => {
    const broken = await startTestApi({
      subresources: {
        inspectImage: () => {
          throw new TypeError('secret detail')
        },
      },
      log: {
        debug: () => {},
        info: () => {},
        warn: () => {},
        error: fields => logged.push(fields),
        child: () => {
          throw new Error('unused')
        },
      },
    })
    try {
      const images = '/apis/macfleet.dev/v1/namespaces/a/images'
      await broken.request('POST', images, { body: { metadata: { name: 'i' }, spec: {} } })
      const answer = await broken.request('GET', `${images}/i/inspect`)
      expect(answer).toMatchObject({ code: 500, json: { reason: 'InternalError' } })
      expect(answer.text).not.toContain('secret')
      expect(JSON.stringify(logged)).toContain('secret detail')
      await broken.store.close()
      expect(await broken.request('GET', images)).toMatchObject({
        code: 503,
        headers: { 'retry-after': '1' },
        json: { reason: 'ServiceUnavailable', details: { retryAfterSeconds: 1 } },
      })
    } finally {
      await broken.close()
    }
  })
})

describe('whatever comes', () => {
  const word = fc.oneof(
    fc.constantFrom('metadata', 'spec', 'status', 'name', 'namespace', 'labels', 'finalizers'),
    fc.constantFrom('apiVersion', 'kind', 'image', 'cpu', 'ports', 'constructor', 'uid', 'op'),
    fc.string(),
  )
  const tree = fc.letrec(tie => ({
    node: fc.oneof(
      { maxDepth: 4 },
      fc.jsonValue(),
      fc.constantFrom('a', 'default', 'micro', '1', 'v1'),
      fc.dictionary(word, tie('node'), { maxKeys: 4 }),
      fc.array(tie('node'), { maxLength: 3 }),
    ),
  })).node
  const types = [json, yaml, merge, jsonPatch]

  test('as a body never fails the server, and what is stored is valid', async () => {
    const paths = kinds.flatMap(kind => {
      const collection = collectionPath(kind).replace(':namespace', 'default')
      return [collection, `${collection}/a`, `${collection}/default/status`]
    })
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...paths),
        fc.constantFrom('POST', 'PUT', 'PATCH', 'DELETE'),
        fc.constantFrom(...types),
        fc.constantFrom('', '?fieldValidation=Warn', '?fieldValidation=Ignore'),
        fc.record({ metadata: tree, spec: tree, status: tree }, { requiredKeys: [] }),
        fc.oneof(tree, fc.constant(undefined)),
        async (path, method, headers, query, object, other) => {
          const body = JSON.stringify(other ?? object)
          const answer = await api.request(method, `${path}${query}`, { body, headers })
          expect(answer.code).toBeGreaterThanOrEqual(200)
          expect(answer.code).toBeLessThan(500)
        },
      ),
      { numRuns: 250 },
    )
    for (const kind of kinds) {
      for (const object of (await api.objects.list(kind)).items) {
        expect(() => validate(kind, object)).not.toThrow()
      }
    }
    expect(Object.keys(Object.prototype)).toEqual([])
  })

  test('as a query never fails the server', async () => {
    const name = fc.constantFrom(
      ...['limit', 'continue', 'labelSelector', 'fieldSelector', 'resourceVersion'],
      ...['includeObject', 'dryRun', 'gracePeriodSeconds'],
    )
    await fc.assert(
      fc.asyncProperty(fc.array(fc.tuple(name, fc.string()), { maxLength: 4 }), async pairs => {
        const query = new URLSearchParams(pairs).toString()
        const answer = await api.request('GET', `${machines()}?${query}`)
        expect(answer.code).toBeLessThan(500)
      }),
      { numRuns: 100 },
    )
  })
})
