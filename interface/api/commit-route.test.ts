import { afterEach, expect, test } from 'vitest'
import { failure } from '../../base/errors.ts'
import { machineBody, machines, startTestApi, type TestApi } from '../../test/support/api.ts'
import type { CommitRequest, Subresources } from './subresources.ts'

let api: TestApi
afterEach(() => api.close())

const path = `${machines('a')}/m/commit`

async function start(commitMachine: Subresources['commitMachine']): Promise<void> {
  api = await startTestApi({ subresources: { commitMachine } })
  await api.request('POST', machines('a'), { body: machineBody('m') })
}

const image = (name: string, status: 'True' | 'False') => ({
  apiVersion: 'macfleet.dev/v1' as const,
  kind: 'Image' as const,
  metadata: { name },
  spec: {
    arch: 'x86_64' as const,
    machine: 'linux' as const,
    firmware: 'bios' as const,
    pinned: false,
  },
  status: {
    phase: 'Ready' as const,
    conditions: [
      {
        ...{
          type: 'FileSystemsConsistent',
          status,
          reason: 'NotFrozen',
          message: 'As after a fall',
        },
        lastTransitionTime: '2026-01-01T00:00:00Z',
      },
    ],
  },
})

test('a machine is committed as was asked, and what is wrong with the image is said', async () => {
  const asked: CommitRequest[] = []
  await start(async (machine, request) => {
    asked.push(request)
    expect(machine.metadata.name).toBe('m')
    return image(request.name, request.pinned ? 'True' : 'False')
  })
  const answer = await api.request('POST', path, { body: { image: 'new', description: 'of m' } })
  expect(answer).toMatchObject({ code: 200, json: { metadata: { name: 'new' } } })
  expect(answer.headers['warning']).toContain('As after a fall')
  expect(asked[0]).toMatchObject({ name: 'new', description: 'of m', pinned: false })
  const second = await api.request('POST', path, { body: { image: 'new', pinned: true } })
  expect(second.headers['warning']).toBeUndefined()
})

test('what makes no sense is refused before anything is done', async () => {
  await start(async () => {
    throw failure('internal', { detail: 'this was done' })
  })
  const long = 'x'.repeat(1025)
  for (const body of [
    ...[
      {},
      { image: 'Not A Name' },
      { image: 7 },
      { image: 'n', more: 1 },
      { image: 'n', pinned: 1 },
    ],
    ...[{ image: 'n', description: long }, { image: 'n', description: 5 }, [], 'text'],
  ]) {
    expect((await api.request('POST', path, { body })).code).toBe(400)
  }
  const nobody = await api.request('POST', `${machines('a')}/nobody/commit`, {
    body: { image: 'n' },
  })
  expect(nobody.code).toBe(404)
  expect((await api.request('GET', path)).code).toBe(405)
})
