import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import {
  readSettings,
  resolveEndpoint,
  settingsFolder,
  withContext,
  writeSettings,
} from './context.ts'

let folder = ''
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'macfleet-context-'))
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

describe('settings', () => {
  test('are empty when there are none, and lie where the environment says', async () => {
    expect(await readSettings(join(folder, 'none'))).toEqual({ contexts: [] })
    expect(settingsFolder({ MACFLEET_CONFIG_DIR: '/x/y', HOME: '/h' })).toBe('/x/y')
    expect(settingsFolder({ HOME: '/h' })).toBe('/h/.config/macfleet')
  })

  test('come back as they were written, readable by their owner alone', async () => {
    const settings = { current: 'lab', contexts: [{ name: 'lab', socket: '/s', namespace: 'n' }] }
    await writeSettings(folder, settings)
    expect(await readSettings(folder)).toEqual(settings)
    expect(statSync(join(folder, 'config.yaml')).mode & 0o777).toBe(0o600)
    expect(readFileSync(join(folder, 'config.yaml'), 'utf8').endsWith('\n')).toBe(true)
  })

  test('may be YAML that a person wrote', async () => {
    writeFileSync(join(folder, 'config.yaml'), 'current: a\ncontexts:\n  - {name: a, socket: /s}\n')
    expect(await readSettings(folder)).toEqual({
      current: 'a',
      contexts: [{ name: 'a', socket: '/s' }],
    })
  })

  test.each([
    ['contexts: 3', '`contexts` must be a list'],
    ['contexts: [{name: a}]', 'contexts[0] must have a name and a socket'],
    ['[]', 'it must be a map'],
    ['{', 'config.yaml'],
  ])('that are wrong are refused: %s', async (text, message) => {
    writeFileSync(join(folder, 'config.yaml'), text)
    await expect(readSettings(folder)).rejects.toThrow(message)
  })

  test('take one context of a name', () => {
    const settings = withContext(
      { contexts: [{ name: 'a', socket: '/1' }] },
      { name: 'a', socket: '/2' },
    )
    expect(settings.contexts).toEqual([{ name: 'a', socket: '/2' }])
  })
})

describe('the daemon that is meant', () => {
  const settings = {
    current: 'a',
    contexts: [
      { name: 'a', socket: '/a', namespace: 'team' },
      { name: 'b', socket: '/b' },
    ],
  }
  const socketOf = (options: object, environment = {}) =>
    resolveEndpoint(options, environment, settings).socket

  test('is the one that was said nearest', () => {
    const environment = { MACFLEET_SOCKET: '/env' }
    expect(socketOf({ socket: '/flag', context: 'b' }, environment)).toBe('/flag')
    expect(socketOf({ context: 'b' }, environment)).toBe('/b')
    expect(socketOf({}, environment)).toBe('/env')
    expect(socketOf({})).toBe('/a')
    expect(resolveEndpoint({}, {}, { contexts: [] }).socket).toBe('/run/macfleet/macfleet.sock')
  })

  test('brings its namespace, unless another was said', () => {
    expect(resolveEndpoint({}, {}, settings).namespace).toBe('team')
    expect(resolveEndpoint({ namespace: 'x' }, {}, settings).namespace).toBe('x')
    expect(resolveEndpoint({ socket: '/s' }, {}, settings).namespace).toBe('default')
  })

  test('must be known', () => {
    expect(() => socketOf({ context: 'nope' })).toThrow('there is no context nope')
  })
})
