import { describe, expect, it } from 'vitest'
import type { KeyValue } from '../etcd/messages.ts'
import { createEtcdCodec } from './etcd-codec.ts'

const codec = createEtcdCodec({ prefix: 'm/', revisionBase: 1_000 })

const found = (key: string, value: string, lease = '0'): KeyValue => ({
  key: Buffer.from(key),
  value: Buffer.from(value),
  createRevision: '5',
  modRevision: '7',
  version: '2',
  lease,
})

describe("how etcd's words are ours", () => {
  it('adds the base to revisions, and takes the prefix from keys', () => {
    const entry = codec.entry(found('m/vm/a', '{"a":1}', '7587850000000000001'))
    expect(entry).toEqual({
      key: 'vm/a',
      value: { a: 1 },
      createRevision: 1_005,
      modRevision: 1_007,
      lease: '7587850000000000001',
    })
    expect(codec.entry(found('m/vm/a', 'null')).lease).toBeUndefined()
    expect(() => codec.entry(found('m/vm/a', '{'))).toThrow('under m/vm/a')
  })

  it('compares with what a key can have, and never takes an old revision for its absence', () => {
    const expected = (modRevision: number) => codec.compare({ key: 'a', modRevision })
    expect(expected(1_007)).toMatchObject({ target: 2, modRevision: 7, result: 0 })
    expect(expected(0)).toMatchObject({ modRevision: 0 })
    for (const before of [1, 999, 1_000])
      expect(expected(before)).toMatchObject({ modRevision: -1 })
    expect(codec.compare({ key: 'a', createRevision: 1_005 })).toMatchObject({
      target: 1,
      createRevision: 5,
    })
  })

  it('bounds a range by its prefix', () => {
    const text = ({ key, rangeEnd }: { key: Buffer; rangeEnd: Buffer }) => [`${key}`, `${rangeEnd}`]
    expect(text(codec.range(''))).toEqual(['m/', 'm0'])
    expect(text(codec.range('vm/'))).toEqual(['m/vm/', 'm/vm0'])
    expect(text(codec.range('vm/', 'vm/b'))).toEqual(['m/vm/b\0', 'm/vm0'])
    expect(text(codec.range('vm/', 'a'))).toEqual(['m/vm/', 'm/vm0'])
    expect(text(codec.range('vm~'))).toEqual(['m/vm~', 'm/vm\x7f'])
  })

  it('weighs and shows only keys of ours', () => {
    expect(codec.bytes(found('m/ab', '"x"'))).toBe(5)
    expect(codec.bytes(found('other', '"x"'))).toBe(0)
    expect(codec.bytes(null)).toBe(0)
    const event = { type: 0, entry: found('other', 'no JSON'), previous: null }
    expect(codec.event(event)).toBeUndefined()
  })
})
