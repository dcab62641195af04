import type { IncomingMessage } from 'node:http'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { ManualClock } from '../../base/manual-clock.ts'
import { createManualClock } from '../../base/manual-clock.ts'
import { virtualMachineKind as kind } from '../../resources/virtual-machine.ts'
import {
  machineBody,
  machines,
  readLines,
  startTestApi,
  type TestApi,
} from '../../test/support/api.ts'

interface Event {
  type: string
  // biome-ignore lint/suspicious/noExplicitAny: tests look into objects of every shape
  object: any
}

let api: TestApi
let clock: ManualClock
beforeEach(async () => {
  clock = createManualClock()
  api = await startTestApi({ clock, limits: { watches: 3, watchBacklog: 50, storeHistory: 20 } })
})
afterEach(() => api.close())

const create = async (name: string, metadata: object = {}, namespace = 'a') => {
  const body = machineBody(name, {}, metadata)
  const { code, json } = await api.request('POST', machines(namespace), { body })
  expect(code).toBe(201)
  return json
}
const label = (name: string, job: string | null) =>
  api.request('PATCH', `${machines('a')}/${name}`, {
    body: { metadata: { labels: { job } } },
    headers: { 'content-type': 'application/merge-patch+json' },
  })
const revision = async () => {
  const { json } = await api.request('GET', machines('a'))
  return json.metadata.resourceVersion
}

/** Reads events one by one, so that a test takes as many as it expects. */
async function watch(query: string, headers = {}, path = machines('a')) {
  const message = await api.open(`${path}?watch=true&${query}`, headers)
  expect(message.statusCode).toBe(200)
  const lines = readLines(message)
  const next = async (): Promise<Event> => (await lines.next()).value as Event
  const take = async (count: number) => {
    const told: string[] = []
    for (let index = 0; index < count; index++) {
      const { type, object } = await next()
      told.push(`${type} ${object.metadata.name ?? object.metadata.resourceVersion}`)
    }
    return told
  }
  const rest = async () => {
    const events: Event[] = []
    for await (const line of lines) events.push(line as Event)
    return events
  }
  return { message, next, take, rest, end: () => end(message) }
}

function end(message: IncomingMessage): Promise<void> {
  return new Promise(resolve => {
    message.on('close', () => resolve())
    message.destroy()
  })
}

describe('watch', () => {
  test('tells changes after a revision, of its namespace', async () => {
    const before = await revision()
    const watching = await watch(`resourceVersion=${before}`)
    await create('x')
    await create('y', {}, 'ab')
    await label('x', '1')
    const { metadata } = await create('z')
    expect(await watching.take(3)).toEqual(['ADDED x', 'MODIFIED x', 'ADDED z'])
    const reference = { name: 'z', namespace: 'a' }
    await api.objects.releaseFinalizer(kind, reference, 'macfleet.dev/guest', metadata.uid)
    await api.objects.remove(kind, reference)
    expect((await watching.next()).type).toBe('MODIFIED')
    const last = await watching.next()
    expect(last.type).toBe('DELETED')
    expect(Number(last.object.metadata.resourceVersion)).toBe(await api.store.revision())
    await watching.end()
  })

  test('without a revision begins with what is there', async () => {
    await create('x')
    for (const query of ['', 'resourceVersion=0']) {
      const watching = await watch(query)
      expect(await watching.take(1)).toEqual(['ADDED x'])
      await watching.end()
    }
    const marked = await watch('sendInitialEvents=true&allowWatchBookmarks=true')
    expect(await marked.take(1)).toEqual(['ADDED x'])
    expect(await marked.next()).toMatchObject({
      type: 'BOOKMARK',
      object: { metadata: { annotations: { 'k8s.io/initial-events-end': 'true' } } },
    })
    await marked.end()
  })

  test('of a selection sees objects come and go with their labels', async () => {
    await create('x')
    await create('y', { labels: { job: '1' } })
    const watching = await watch(`resourceVersion=${await revision()}&labelSelector=job%3D1`)
    await label('x', '1')
    await label('y', '2')
    await label('y', '3')
    await label('x', null)
    expect(await watching.take(3)).toEqual(['ADDED x', 'DELETED y', 'DELETED x'])
    await watching.end()
    const byName = await watch('fieldSelector=metadata.name%3Dy')
    expect(await byName.take(1)).toEqual(['ADDED y'])
    await byName.end()
  })

  test('as tables tells the columns once', async () => {
    await create('x')
    await create('y')
    const accept = 'application/json;as=Table;v=v1;g=meta.k8s.io'
    const watching = await watch('', { accept })
    const [first, second] = [await watching.next(), await watching.next()]
    expect(first.object).toMatchObject({
      kind: 'Table',
      rows: [{ object: { kind: 'PartialObjectMetadata', metadata: { name: 'x' } } }],
    })
    expect(first.object.columnDefinitions.length).toBeGreaterThan(5)
    expect(second.object).toMatchObject({ kind: 'Table', columnDefinitions: null })
    await watching.end()
  })

  test('ends after its time, with a bookmark for who wants one', async () => {
    const begin = await revision()
    const query = `resourceVersion=${begin}&timeoutSeconds=90`
    const [plain, marked] = [await watch(query), await watch(`${query}&allowWatchBookmarks=true`)]
    await create('y', {}, 'ab')
    const newest = String(await api.store.revision())
    await clock.advance(60_000)
    await clock.advance(30_000)
    expect(await plain.rest()).toEqual([])
    const told = await marked.rest()
    for (const event of told) {
      expect(event).toMatchObject({ type: 'BOOKMARK', object: { kind: 'VirtualMachine' } })
      expect(Number(event.object.metadata.resourceVersion)).toBeLessThanOrEqual(Number(newest))
    }
  })

  test('from a forgotten revision, or one that never was, is told to list anew', async () => {
    const old = await revision()
    for (let index = 0; index < 30; index++) await create(`m${index}`)
    for (const version of [old, '999999']) {
      const watching = await watch(`resourceVersion=${version}`)
      expect(await watching.rest()).toMatchObject([
        { type: 'ERROR', object: { kind: 'Status', code: 410, reason: 'Expired' } },
      ])
    }
  })

  test('more than so many are refused, until some have ended', async () => {
    const open = [await watch(''), await watch(''), await watch('')]
    const refused = await api.request('GET', `${machines('a')}?watch=1`)
    expect(refused).toMatchObject({ code: 429, json: { reason: 'TooManyRequests' } })
    for (const watching of open) await watching.end()
    await expect
      .poll(async () => {
        const message = await api.open(`${machines('a')}?watch=1`)
        message.destroy()
        return message.statusCode
      })
      .toBe(200)
  })

  test('that breaks and begins again where it ended misses and repeats nothing', async () => {
    let version = await revision()
    const seen: string[] = []
    const total = 60
    const writing = (async () => {
      for (let index = 0; index < total; index++) {
        await create(`w${index}`)
        // The history is short here: nobody writes further ahead than it reaches back.
        await expect.poll(() => seen.length, { interval: 2 }).toBeGreaterThan(index - 10)
      }
    })()
    while (seen.length < total) {
      const watching = await watch(`resourceVersion=${version}`)
      for (let taken = 0; taken < 7 && seen.length < total; taken++) {
        const { object } = await watching.next()
        seen.push(object.metadata.name)
        version = object.metadata.resourceVersion
      }
      await watching.end()
    }
    await writing
    expect(seen).toEqual(Array.from({ length: total }, (_, index) => `w${index}`))
  })

  test('ends when the server closes', async () => {
    const other = await startTestApi()
    const message = await other.open(`${machines()}?watch=true`)
    const ended = (async () => {
      for await (const _ of message);
    })()
    await other.close()
    await ended
  })
})
