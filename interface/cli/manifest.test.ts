import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { describe, expect, onTestFinished, test } from 'vitest'
import { parseManifests, readManifests } from './manifest.ts'

const machine = (name: string) =>
  `apiVersion: macfleet.dev/v1\nkind: VirtualMachine\nmetadata: {name: ${name}}\nspec: {image: x}\n`

describe('a manifest', () => {
  test('holds several documents, each with its line and its namespace', async () => {
    const found = await parseManifests(`# first\n${machine('a')}---\n${machine('b')}`, 'lab', 'f')
    expect(found.map(({ name, namespace, source }) => [name, namespace, source])).toEqual([
      ['a', 'lab', 'f:2'],
      ['b', 'lab', 'f:7'],
    ])
    expect(found[0]?.object['metadata']).toEqual({ name: 'a', namespace: 'lab' })
  })

  test('may be JSON, a List, or hold nothing between its dashes', async () => {
    const list = {
      apiVersion: 'v1',
      kind: 'List',
      items: [
        { apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'n' } },
        {
          apiVersion: 'macfleet.dev/v1',
          kind: 'Image',
          metadata: { name: 'i', namespace: 'other' },
        },
      ],
    }
    const found = await parseManifests(JSON.stringify(list), 'lab', 'f')
    expect(found.map(({ name, namespace }) => [name, namespace])).toEqual([
      ['n', 'lab'],
      ['i', 'other'],
    ])
    // What has no namespace is given none.
    expect(found[0]?.object['metadata']).toEqual({ name: 'n' })
    expect(await parseManifests('---\n---\n# nothing\n', 'lab', 'f')).toEqual([])
  })

  test.each([
    ['a: [', 'f:'],
    ['- 1', 'f:1: it is no object'],
    ['kind: VirtualMachine', 'apiVersion and kind must say what it is'],
    ['apiVersion: macfleet.dev/v1\nkind: VirtualMachne', 'did you mean VirtualMachine?'],
    ['apiVersion: v1\nkind: Namespace', 'this Namespace has no metadata.name'],
  ])('that is wrong is refused with its place: %s', async (text, message) => {
    await expect(parseManifests(text, 'lab', 'f')).rejects.toThrow(message)
  })

  test('can not make us expand aliases without end', async () => {
    const levels = Array.from({ length: 12 }, (_, at) =>
      at === 0
        ? 'a0: &a0 [x]'
        : `a${at}: &a${at} [${Array(9)
            .fill(`*a${at - 1}`)
            .join(', ')}]`,
    )
    await expect(parseManifests(levels.join('\n'), 'lab', 'f')).rejects.toThrow('alias')
  })
})

describe('manifest files', () => {
  test('are those of a folder in order, or standard input', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'macfleet-manifest-'))
    onTestFinished(() => rmSync(folder, { recursive: true, force: true }))
    writeFileSync(join(folder, 'b.yml'), machine('b'))
    writeFileSync(join(folder, 'a.yaml'), machine('a'))
    writeFileSync(join(folder, 'notes.txt'), 'no manifest')
    const names = async (paths: string[], input = '') =>
      (await readManifests(paths, 'lab', Readable.from([Buffer.from(input)]))).map(m => m.name)
    expect(await names([folder])).toEqual(['a', 'b'])
    expect(await names(['-'], machine('c'))).toEqual(['c'])
    await expect(names([join(folder, 'none')])).rejects.toThrow('can not be read')
    await expect(names([join(folder, 'notes.txt')])).rejects.toThrow('it is no object')
    await expect(names(['-'], '# nothing')).rejects.toThrow('there are no objects in it')
  })
})
