import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { readInvocation } from './config.ts'

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'macfleet-config-'))
})
afterEach(() => rmSync(folder, { recursive: true }))

function withFile(text: string, ...flags: string[]) {
  const path = join(folder, 'macfleetd.yaml')
  writeFileSync(path, text)
  return readInvocation(['--config', path, ...flags])
}

test('fills in defaults, and flags win over the file', () => {
  const { config, action } = withFile('dataDir: /a\nrunDir: /r\n', '--data-dir', '/b')
  expect(action).toBe('serve')
  expect(config).toMatchObject({
    dataDir: '/b',
    socket: '/r/macfleet.sock',
    accelerator: 'auto',
    forwardPorts: { first: 20_000, last: 29_999 },
  })
  expect(config.hostName).not.toBe('')
})

test.each([
  ['dataDri: /a', 'dataDri: unknown field; did you mean dataDir?'],
  ['accelerator: fast', 'accelerator: must be one of auto, kvm, tcg'],
  ['memoryReserve: lots', 'memoryReserve: must be a quantity'],
  ['- a', 'must hold settings'],
  ['a: [', 'configuration'],
])('refuses %s', (text, sentence) => {
  expect(() => withFile(text)).toThrow(sentence)
})

test('refuses an unknown flag and a file that is not there', () => {
  expect(() => readInvocation(['--colour'])).toThrow('--colour')
  expect(() => readInvocation(['--config', join(folder, 'none')])).toThrow('ENOENT')
})
