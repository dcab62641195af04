import { describe, expect, test } from 'vitest'
import { isFailure } from '../../base/errors.ts'
import { formatReference, parseReference } from './reference.ts'

const digest = `sha256:${'0123456789abcdef'.repeat(4)}`

describe('a reference', () => {
  test.each([
    ['registry.example.test/base', { repository: 'base', tag: 'latest' }],
    [
      'registry.example.test/team/a_b__c-d.e:1.2-X_y',
      { repository: 'team/a_b__c-d.e', tag: '1.2-X_y' },
    ],
    [`registry.example.test/team/base@${digest}`, { repository: 'team/base', digest }],
    [`registry.example.test/team/base:1@${digest}`, { repository: 'team/base', tag: '1', digest }],
  ])('%s', (text, wanted) => {
    const reference = parseReference(text)
    expect(reference).toEqual({ host: 'registry.example.test', ...wanted })
    expect(parseReference(formatReference(reference))).toEqual(reference)
  })

  test.each([
    ['localhost/base', 'localhost'],
    ['Registry.Example.Test:5000/base', 'registry.example.test:5000'],
    ['127.0.0.1:5000/base', '127.0.0.1:5000'],
    ['[::1]:5000/base', '[::1]:5000'],
  ])('%s names the host %s', (text, host) => {
    expect(parseReference(text).host).toBe(host)
  })

  test.each([
    ['', 'host'],
    ['base', 'host'],
    ['team/base', 'host'],
    ['https://registry.example.test/base', 'scheme'],
    ['registry.example.test/', 'path'],
    ['registry.example.test/Base', 'path'],
    ['registry.example.test/a//b', 'path'],
    ['registry.example.test/../v2', 'path'],
    ['registry.example.test/a?b', 'path'],
    ['registry.example.test/a%2fb', 'path'],
    ['user:secret@registry.example.test/a', 'not a host'],
    ['registry.example.test:0/a', 'port'],
    ['registry.example.test:70000/a', 'port'],
    ['-x.example.test/a', 'not a host'],
    ['a..b/c', 'not a host'],
    ['999.1.1.1:1/c', 'not a host'],
    ['registry.example.test/a:', 'tag'],
    ['registry.example.test/a:.b', 'tag'],
    [`registry.example.test/a:${'b'.repeat(129)}`, 'tag'],
    ['registry.example.test/a@sha256:abc', 'sha256'],
    [`registry.example.test/a@${digest.toUpperCase()}`, 'sha256'],
    ['registry.example.test/a@md5:abc', 'sha256'],
    [`registry.example.test/${'a/'.repeat(130)}a`, 'path'],
    [`registry.example.test/${'a'.repeat(600)}`, 'characters'],
  ])('%s is refused', (text, why) => {
    let thrown: unknown
    try {
      parseReference(text)
    } catch (error) {
      thrown = error
    }
    expect(isFailure(thrown, 'referenceInvalid') && thrown.message).toContain(why)
  })
})
