import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { startTestApi, type TestApi } from './support/api.ts'
import { createTestCommandLine, type TestCommandLine } from './support/command-line.ts'

let api: TestApi
let cli: TestCommandLine
beforeAll(async () => {
  api = await startTestApi()
  cli = createTestCommandLine(api.socketPath)
})
afterAll(async () => {
  cli?.remove()
  await api?.close()
})

/** The modules that a command imports: paths from the top of the checkout, and Node's own by name. */
async function modulesOf(...args: string[]): Promise<string[]> {
  const list = join(cli.folder, `modules-${args.join('-')}`)
  const hook = new URL('./support/record-modules.ts', import.meta.url).href
  cli.environment['NODE_OPTIONS'] = `--import=${hook}`
  cli.environment['RECORD_MODULES'] = list
  try {
    expect(await cli.macfleet(...args)).toMatchObject({ code: 0 })
  } finally {
    delete cli.environment['NODE_OPTIONS']
    delete cli.environment['RECORD_MODULES']
  }
  const top = pathToFileURL(join(import.meta.dirname, '..')).href
  return readFileSync(list, 'utf8')
    .trim()
    .split('\n')
    .map(url => (url.startsWith(top) ? url.slice(top.length + 1) : url))
}

const packagesOf = (paths: readonly string[]): string[] => [
  ...new Set(paths.map(path => /^node_modules\/((@[^/]+\/)?[^/]+)/.exec(path)?.[1] ?? '')),
]

describe('what a command loads', () => {
  test('for `get` is little: no schemas, no YAML, no WebSocket, no other command', async () => {
    const paths = await modulesOf('get', 'ns')
    expect(packagesOf(paths).filter(Boolean)).toEqual(['commander'])
    const commands = paths.filter(path => path.startsWith('interface/cli/commands/'))
    expect(commands).toEqual(['interface/cli/commands/get.ts'])
    expect(paths.length).toBeLessThan(60)
    // Costs 35 ms when it is imported; see api-client.ts.
    expect(paths).not.toContain('node:http')
  })

  test.each([['doctor'], ['top', 'hosts'], ['describe', 'ns'], ['image', 'list']])(
    'for `%s` is nothing of the daemon',
    async (...args) => {
      const paths = await modulesOf(...args.filter(Boolean))
      const ours = paths.filter(path => !/^(node_modules\/|node:)/.test(path))
      const foreign = ours.filter(path => !/^(base|resources|interface\/cli|package)\b/.test(path))
      expect(foreign.filter(path => path !== 'test/support/record-modules.ts')).toEqual([])
      const heavy = /fastify|libp2p|etcd|level|pino|systeminformation|node-pty/
      expect(packagesOf(paths).filter(name => heavy.test(name))).toEqual([])
    },
  )
})
