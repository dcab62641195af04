import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { applyJsonPatch } from './json-patch.ts'
import { parseJsonText } from './json-text.ts'
import { applyMergePatch } from './merge-patch.ts'

describe('merge patch', () => {
  // RFC 7396, appendix A.
  test.each([
    [{ a: 'b' }, { a: 'c' }, { a: 'c' }],
    [{ a: 'b' }, { b: 'c' }, { a: 'b', b: 'c' }],
    [{ a: 'b' }, { a: null }, {}],
    [{ a: 'b', b: 'c' }, { a: null }, { b: 'c' }],
    [{ a: ['b'] }, { a: 'c' }, { a: 'c' }],
    [{ a: 'c' }, { a: ['b'] }, { a: ['b'] }],
    [{ a: { b: 'c' } }, { a: { b: 'd', c: null } }, { a: { b: 'd' } }],
    [{ a: [{ b: 'c' }] }, { a: [1] }, { a: [1] }],
    [
      ['a', 'b'],
      ['c', 'd'],
      ['c', 'd'],
    ],
    [{ a: 'b' }, ['c'], ['c']],
    [{ a: 'foo' }, null, null],
    [{ e: null }, { a: 1 }, { e: null, a: 1 }],
    [[1, 2], { a: 'b', c: null }, { a: 'b' }],
    [{}, { a: { bb: { ccc: null } } }, { a: { bb: {} } }],
  ])('of %j by %j is %j', (target, patch, result) => {
    expect(applyMergePatch(target, patch)).toEqual(result)
  })
})

describe('JSON patch', () => {
  const target = { foo: ['bar', 'baz'], a: { b: 1 }, '': 0, 'a/b': 1, 'm~n': 8 }

  test.each([
    [[{ op: 'add', path: '/foo/1', value: 'x' }], { foo: ['bar', 'x', 'baz'] }],
    [[{ op: 'add', path: '/foo/-', value: 'x' }], { foo: ['bar', 'baz', 'x'] }],
    [[{ op: 'add', path: '/a/c', value: null }], { a: { b: 1, c: null } }],
    [[{ op: 'remove', path: '/foo/0' }], { foo: ['baz'] }],
    [[{ op: 'replace', path: '/a~1b', value: 2 }], { 'a/b': 2 }],
    [[{ op: 'move', from: '/foo/0', path: '/foo/1' }], { foo: ['baz', 'bar'] }],
    [[{ op: 'copy', from: '/a', path: '/c' }], { c: { b: 1 } }],
    [[{ op: 'test', path: '/m~0n', value: 8 }], {}],
    [[{ op: 'test', path: '/a', value: { b: 1 } }], {}],
  ])('%j', (patch, result) => {
    const before = structuredClone(target)
    expect(applyJsonPatch(target, patch)).toEqual({ ...target, ...result })
    expect(target).toEqual(before)
  })

  test.each([
    [{ op: 'add', path: '/x/y', value: 1 }, 'nothing at /x'],
    [{ op: 'add', path: '/foo/3', value: 1 }, 'no place at /foo/3'],
    [{ op: 'add', path: '/foo/01', value: 1 }, 'no place at /foo/01'],
    [{ op: 'add', path: '/a/b/c', value: 1 }, 'nothing can be put at /a/b/c'],
    [{ op: 'add', path: 'a', value: 1 }, 'no JSON pointer'],
    [{ op: 'add', path: '/a' }, 'has no value'],
    [{ op: 'remove', path: '/foo/2' }, 'nothing at /foo/2'],
    [{ op: 'remove', path: '/constructor' }, 'nothing at /constructor'],
    [{ op: 'replace', path: '/x', value: 1 }, 'nothing at /x'],
    [{ op: 'move', from: '/a', path: '/a/b' }, 'moved into itself'],
    [{ op: 'test', path: '/a', value: 1 }, 'the test of /a failed'],
    [{ op: 'spam', path: '/a' }, 'no op'],
    [5, 'is no object'],
  ])('refuses %j', (operation, sentence) => {
    expect(() => applyJsonPatch(target, [operation])).toThrow(sentence)
  })

  test('does not grow without bound by copies of copies', () => {
    const double = { op: 'copy', from: '/a', path: '/a/x' }
    const patch = Array.from({ length: 900 }, (_, at) => ({ ...double, path: `/a/x${at}` }))
    expect(() => applyJsonPatch({ a: {} }, patch)).toThrow('too large')
    expect(() => applyJsonPatch({}, Array(5_000).fill(double))).toThrow('at most')
  })
})

describe('JSON text', () => {
  test('is parsed as JSON.parse does, unless a key is there twice', () => {
    fc.assert(
      fc.property(fc.jsonValue({ maxDepth: 5, noUnicodeString: false }), value => {
        const text = JSON.stringify(value, null, 1)
        if (text.includes('__proto__')) return
        expect(parseJsonText(text)).toEqual(JSON.parse(text))
      }),
      { numRuns: 300 },
    )
    expect(parseJsonText('[{"a":1},{"a":2},{"b":{"a":"a"},"a":["a","a"]}]')).toHaveLength(3)
    expect(() => parseJsonText('{"a":{"b":1},"\\u0061":2}')).toThrow('"a" is there twice')
    expect(() => parseJsonText('{"x":[{"b":1,"b":2}]}')).toThrow('"b" is there twice')
  })

  test('that is large or nasty takes no noticeable time', () => {
    const texts = [
      JSON.stringify('\\"'.repeat(250_000)),
      `[${'1,'.repeat(500_000)}1]`,
      `{${Array.from({ length: 50_000 }, (_, at) => `"k${at}":{}`).join()}}`,
    ]
    const begin = performance.now()
    for (const text of texts) parseJsonText(text)
    expect(performance.now() - begin).toBeLessThan(3_000)
  })
})
