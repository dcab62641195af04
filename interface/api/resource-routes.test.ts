import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { failure } from '../../base/errors.ts'
import type { Guard } from '../../cluster/objects.ts'
import { namespaceKind } from '../../resources/namespace.ts'
import { virtualMachineKind } from '../../resources/virtual-machine.ts'
import { machineBody, machines, startTestApi, type TestApi } from '../../test/support/api.ts'

let api: TestApi
beforeEach(async () => {
  const guard: Guard = {
    kind: namespaceKind,
    remove: async () => {
      throw failure('forbidden', { detail: 'namespaces stay' })
    },
  }
  api = await startTestApi({ guards: [guard], limits: { requestBodyBytes: 100_000, listPage: 5 } })
})
afterEach(() => api.close())

const merge = { 'content-type': 'application/merge-patch+json' }
const asTable = { accept: 'application/json;as=Table;v=v1;g=meta.k8s.io,application/json' }

describe('one object', () => {
  test('is created, read, replaced, patched and deleted', async () => {
    const created = await api.request('POST', machines(), { body: machineBody('a') })
    expect(created).toMatchObject({ code: 201, json: { metadata: { generation: 1 } } })
    const read = await api.request('GET', `${machines()}/a`)
    expect(read.json).toEqual(created.json)
    expect(read.headers['content-type']).toContain('application/json')
    const { metadata } = read.json
    const body = machineBody('a', { powerState: 'Stopped' }, { ...metadata })
    const replaced = await api.request('PUT', `${machines()}/a`, { body })
    expect(replaced).toMatchObject({ code: 200, json: { metadata: { generation: 2 } } })
    expect(await api.request('PUT', `${machines()}/a`, { body })).toMatchObject({
      code: 409,
      json: { reason: 'Conflict', details: { kind: 'virtualmachines', name: 'a' } },
    })
    const patched = await api.request('PATCH', `${machines()}/a`, {
      body: { metadata: { labels: { job: '1' } }, spec: { powerState: 'Running', ttl: null } },
      headers: merge,
    })
    expect(patched.json).toMatchObject({ metadata: { labels: { job: '1' }, generation: 3 } })
    const byJson = await api.request('PATCH', `${machines()}/a`, {
      body: [
        { op: 'test', path: '/metadata/labels/job', value: '1' },
        { op: 'add', path: '/metadata/labels/a~1b', value: '2' },
      ],
      headers: { 'content-type': 'application/json-patch+json' },
    })
    expect(byJson.json).toMatchObject({ metadata: { labels: { job: '1', 'a/b': '2' } } })
    const deleted = await api.request('DELETE', `${machines()}/a`, {
      body: { kind: 'DeleteOptions', apiVersion: 'v1', propagationPolicy: 'Background' },
    })
    expect(deleted).toMatchObject({ code: 200, json: { kind: 'VirtualMachine' } })
    expect(deleted.json.metadata.deletionTimestamp).toBeDefined()
    const reference = { name: 'a', namespace: 'default' }
    await api.objects.releaseFinalizer(
      virtualMachineKind,
      reference,
      'macfleet.dev/guest',
      metadata.uid,
    )
    expect(await api.request('GET', `${machines()}/a`)).toMatchObject({
      code: 404,
      json: {
        kind: 'Status',
        status: 'Failure',
        reason: 'NotFound',
        message: 'virtualmachines.macfleet.dev "a" not found',
        details: { name: 'a', group: 'macfleet.dev', kind: 'virtualmachines' },
      },
    })
  })

  test('without finalizers is gone with a Status of success', async () => {
    const path = '/api/v1/namespaces/a/events'
    const body = { metadata: { name: 'e' }, involvedObject: { name: 'x' }, reason: 'R' }
    expect(await api.request('POST', path, { body })).toMatchObject({ code: 201 })
    expect(await api.request('DELETE', `${path}/e`)).toMatchObject({
      code: 200,
      json: { status: 'Success', details: { name: 'e', kind: 'events', uid: expect.any(String) } },
    })
    expect(await api.request('DELETE', '/api/v1/namespaces/a')).toMatchObject({
      code: 403,
      json: { reason: 'Forbidden', message: 'namespaces stay' },
    })
  })

  test('has a status that is written apart', async () => {
    await api.request('POST', machines(), { body: machineBody('a') })
    const path = `${machines()}/a`
    const given = { ...machineBody('a', { cpu: 4 }), status: { phase: 'Running' } }
    expect((await api.request('PUT', path, { body: given })).json.status).toBeUndefined()
    const status = await api.request('PUT', `${path}/status`, {
      body: { ...machineBody('a', { cpu: 8 }), status: { phase: 'Running' } },
    })
    expect(status.json).toMatchObject({ spec: { cpu: 4 }, status: { phase: 'Running' } })
    const patched = await api.request('PATCH', `${path}/status`, {
      body: { status: { host: 'h' } },
      headers: merge,
    })
    expect(patched.json.status).toEqual({ phase: 'Running', host: 'h' })
    const stale = { metadata: { resourceVersion: '1' }, status: { phase: 'Failed' } }
    const options = { body: stale, headers: merge }
    expect(await api.request('PATCH', `${path}/status`, options)).toMatchObject({ code: 409 })
  })

  test('in a dry run is shown and not stored', async () => {
    const body = machineBody('a')
    const shown = await api.request('POST', `${machines()}?dryRun=All`, { body })
    expect(shown).toMatchObject({ code: 201, json: { spec: { memory: '1Gi' } } })
    expect(await api.request('GET', `${machines()}/a`)).toMatchObject({ code: 404 })
    await api.request('POST', machines(), { body })
    expect(await api.request('POST', `${machines()}?dryRun=All`, { body })).toMatchObject({
      code: 409,
    })
    const revision = await api.store.revision()
    const headers = merge
    await api.request('PATCH', `${machines()}/a?dryRun=All`, {
      body: { spec: { cpu: 3 } },
      headers,
    })
    await api.request('DELETE', `${machines()}/a?dryRun=All`)
    await api.request('DELETE', `${machines()}/a`, { body: { dryRun: ['All'] } })
    expect(await api.store.revision()).toBe(revision)
  })

  test('with unknown fields is refused, warned of or pruned, as the request wants it', async () => {
    const body = machineBody('a', { cpuu: 2 })
    expect(await api.request('POST', machines(), { body })).toMatchObject({
      code: 422,
      json: {
        reason: 'Invalid',
        details: { causes: [{ field: 'spec.cpuu', message: 'unknown field; did you mean cpu?' }] },
      },
    })
    const warned = await api.request('POST', `${machines()}?fieldValidation=Warn`, { body })
    expect(warned.code).toBe(201)
    expect(warned.headers['warning']).toBe('299 - "unknown field; did you mean cpu?: spec.cpuu"')
    expect(warned.json.spec.cpuu).toBeUndefined()
    body.metadata.name = 'b'
    const ignored = await api.request('POST', `${machines()}?fieldValidation=Ignore`, { body })
    expect(ignored.code).toBe(201)
    expect(ignored.headers['warning']).toBeUndefined()
  })

  test('may be YAML', async () => {
    const headers = { 'content-type': 'application/yaml' }
    const yaml = 'metadata:\n  name: a\nspec:\n  image: micro\n  cpu: 2\n'
    const created = await api.request('POST', machines(), { body: yaml, headers })
    expect(created).toMatchObject({ code: 201, json: { spec: { cpu: 2 } } })
  })
})

describe('lists', () => {
  const create = async (namespace: string, name: string, labels = {}) => {
    const body = machineBody(name, {}, { labels })
    expect(await api.request('POST', machines(namespace), { body })).toMatchObject({ code: 201 })
  }
  const names = async (path: string) => {
    const answer = await api.request('GET', path)
    expect(answer.code).toBe(200)
    return answer.json.items.map((item: { metadata: { name: string } }) => item.metadata.name)
  }

  test('show a namespace or all, and what selectors choose', async () => {
    await create('a', 'x', { job: '1', tier: 'web' })
    await create('a', 'y', { job: '2' })
    await create('ab', 'z')
    const all = '/apis/macfleet.dev/v1/virtualmachines'
    expect(await names(machines('a'))).toEqual(['x', 'y'])
    expect(await names(all)).toEqual(['x', 'y', 'z'])
    const select = (selector: string) =>
      names(`${all}?labelSelector=${encodeURIComponent(selector)}`)
    expect(await select('job=1')).toEqual(['x'])
    expect(await select('job!=1')).toEqual(['y', 'z'])
    expect(await select('job in (1, 2),!tier')).toEqual(['y'])
    expect(await select('job notin (2)')).toEqual(['x', 'z'])
    expect(await select('tier')).toEqual(['x'])
    expect(await names(`${all}?fieldSelector=metadata.name%3Dz`)).toEqual(['z'])
    expect(await names(`${all}?fieldSelector=metadata.namespace!=a`)).toEqual(['z'])
    expect(await names(machines('nowhere'))).toEqual([])
  })

  test('come in pages, at most so long', async () => {
    for (let index = 0; index < 7; index++) await create('a', `m${index}`)
    const first = await api.request('GET', `${machines('a')}?limit=500`)
    expect(first.json.items).toHaveLength(5)
    const token = encodeURIComponent(first.json.metadata.continue)
    const second = await api.request('GET', `${machines('a')}?limit=500&continue=${token}`)
    expect(second.json.items).toHaveLength(2)
    expect(second.json.metadata).toEqual({ resourceVersion: first.json.metadata.resourceVersion })
  })

  test('are tables for who prints them', async () => {
    await create('a', 'x')
    const list = await api.request('GET', machines('a'), { headers: asTable })
    expect(list.json).toMatchObject({
      kind: 'Table',
      apiVersion: 'meta.k8s.io/v1',
      columnDefinitions: expect.arrayContaining([
        {
          name: 'Name',
          type: 'string',
          format: 'name',
          description: expect.any(String),
          priority: 0,
        },
      ]),
      rows: [{ cells: expect.arrayContaining(['x']), object: { kind: 'PartialObjectMetadata' } }],
    })
    const path = `${machines('a')}?includeObject=`
    const none = await api.request('GET', `${path}None`, { headers: asTable })
    expect(none.json.rows[0].object).toBeUndefined()
    const whole = await api.request('GET', `${path}Object`, { headers: asTable })
    expect(whole.json.rows[0].object.spec.image).toBe('micro')
    const one = await api.request('GET', `${machines('a')}/x`, { headers: asTable })
    expect(one.json.rows).toHaveLength(1)
  })

  test('of events are chosen by whom they are about', async () => {
    const path = '/api/v1/namespaces/a/events'
    for (const [name, kind] of Object.entries({ e1: 'VirtualMachine', e2: 'Image' })) {
      await api.request('POST', path, { body: { metadata: { name }, involvedObject: { kind } } })
    }
    expect(await names(`${path}?fieldSelector=involvedObject.kind%3DImage`)).toEqual(['e2'])
  })
})

describe('two writers', () => {
  test('of 100 patches each lose none', async () => {
    await api.request('POST', machines(), { body: machineBody('a') })
    const write = async (writer: string) => {
      for (let index = 0; index < 100; index++) {
        const body = { metadata: { annotations: { [`${writer}-${index}`]: 'x' } } }
        const answer = await api.request('PATCH', `${machines()}/a`, { body, headers: merge })
        expect(answer.code).toBe(200)
      }
    }
    await Promise.all([write('one'), write('two')])
    const { json } = await api.request('GET', `${machines()}/a`)
    expect(Object.keys(json.metadata.annotations)).toHaveLength(200)
  })

  test('that read, change and replace lose none either', async () => {
    await api.request('POST', machines(), {
      body: machineBody('a', {}, { annotations: { n: '0' } }),
    })
    let conflicts = 0
    const write = async () => {
      for (let done = 0; done < 100; ) {
        const { json } = await api.request('GET', `${machines()}/a`)
        json.metadata.annotations.n = String(Number(json.metadata.annotations.n) + 1)
        const { code } = await api.request('PUT', `${machines()}/a`, { body: json })
        if (code === 200) done++
        else expect(code).toBe(409)
        if (code === 409) conflicts++
      }
    }
    await Promise.all([write(), write()])
    const { json } = await api.request('GET', `${machines()}/a`)
    expect(json.metadata.annotations.n).toBe('200')
    expect(conflicts).toBeGreaterThan(0)
  })
})
