import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Level } from 'level'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { runCommand } from './command.ts'
import { onlyStreams } from './inherited-descriptors.ts'

const folder = mkdtempSync(join(tmpdir(), 'macfleet-descriptors-'))
const level = new Level(folder)
const list = 'ls -l /proc/self/fd'

beforeAll(() => level.open())
afterAll(async () => {
  await level.close()
  rmSync(folder, { recursive: true })
})

test('a child gets no database of ours', () => {
  const plain = spawnSync('sh', ['-c', list], { stdio: ['ignore', 'pipe', 'ignore'] })
  expect(plain.stdout.toString(), 'LevelDB still leaks: else this file can go').toContain(folder)
  const stdio = onlyStreams('ignore', 'pipe', 'ignore')
  expect(spawnSync('sh', ['-c', list], { stdio }).stdout.toString()).not.toContain(folder)
})

test('nor do commands', async () => {
  const { stdout } = await runCommand('sh', ['-c', list], { timeoutMs: 5000 })
  expect(stdout).toContain('/dev/null')
  expect(stdout).not.toContain(folder)
})
