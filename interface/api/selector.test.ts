import { describe, expect, test } from 'vitest'
import { eventKind } from '../../resources/event.ts'
import type { Resource } from '../../resources/kind.ts'
import { parseFieldSelector, parseLabelSelector } from './selector.ts'

const object = (labels: Record<string, string>): Resource => ({
  apiVersion: 'v1',
  kind: 'Event',
  metadata: { name: 'x', namespace: 'a', labels },
})

describe('label selector', () => {
  test.each([
    ['', true],
    ['app=web', true],
    ['app==web', true],
    ['app = db', false],
    ['app!=db', true],
    ['other!=x', true],
    ['app', true],
    ['!app', false],
    ['! other', true],
    ['constructor', false],
    ['constructor!=x', true],
    ['app in (db, web)', true],
    ['app in (db)', false],
    ['app notin (db)', true],
    ['other notin (db)', true],
    ['other in ()', false],
    ['empty=', true],
    ['empty in (,x)', true],
    ['example.org/tier in (a,b),app=web,!other', true],
    ['app=web,example.org/tier=c', false],
  ])('%s', (selector, result) => {
    const labels = { app: 'web', 'example.org/tier': 'a', empty: '' }
    expect(parseLabelSelector(selector)(object(labels))).toBe(result)
  })

  test.each(['=x', 'a=b=c', 'a in b', 'a in (b', 'a notin', 'ä=b', 'a b', `a=${'x'.repeat(5000)}`])(
    'refuses %.40s',
    selector => expect(() => parseLabelSelector(selector)).toThrow('labelSelector'),
  )
})

describe('field selector', () => {
  test('chooses by name, namespace and what an event is about', () => {
    const event = { ...object({}), involvedObject: { kind: 'VirtualMachine', name: 'm' } }
    const matches = (text: string) => parseFieldSelector(eventKind as never, text)(event)
    expect(matches('metadata.name=x,metadata.namespace!=b')).toBe(true)
    expect(matches('involvedObject.kind=VirtualMachine,involvedObject.name==m')).toBe(true)
    expect(matches('involvedObject.name!=m')).toBe(false)
    expect(matches('involvedObject.uid=')).toBe(true)
    expect(() => matches('spec.x=1')).toThrow('fieldSelector')
    expect(() => matches('metadata.name')).toThrow('fieldSelector')
  })
})
