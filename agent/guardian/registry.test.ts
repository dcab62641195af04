import { readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { temporaryFolder } from '../../test/support/temporary-folder.ts'
import { openRegistry } from './registry.ts'

const entry = {
  ...{ name: 'vm-1', bootId: 'b', startedAt: 't', stderrPath: '/s', exitPath: '/e' },
  identity: { pid: 5, startTicks: 6 },
}

test('what was written is read again, until it is removed', () => {
  const folder = join(temporaryFolder(), 'processes')
  const registry = openRegistry(folder)
  registry.write({ ...entry, identity: undefined })
  registry.write(entry)
  registry.write({ ...entry, name: 'vm-2' })
  expect(openRegistry(folder).readAll()).toEqual([entry, { ...entry, name: 'vm-2' }])
  registry.remove('vm-1')
  registry.remove('vm-1')
  expect(readdirSync(folder)).toEqual(['vm-2.json'])
})

test('an entry that is damaged keeps its name', () => {
  const folder = temporaryFolder()
  const registry = openRegistry(folder)
  const wrong = ['', '{', '[]', '{"name":"other"}', JSON.stringify({ ...entry, identity: 5 })]
  for (const [index, text] of wrong.entries()) writeFileSync(join(folder, `vm-${index}.json`), text)
  writeFileSync(join(folder, 'vm-9.json.tmp'), 'left by a crash')
  const all = registry.readAll()
  expect(all.map(({ name }) => name).toSorted()).toEqual(['vm-0', 'vm-1', 'vm-2', 'vm-3', 'vm-4'])
  expect(all.every(({ bootId, identity }) => bootId === '' && identity === undefined)).toBe(true)
})
