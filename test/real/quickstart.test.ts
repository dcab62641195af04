import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { checkout, stopLocalHost } from '../../agent/dev/local-host.ts'
import { processesOf, runCli } from '../support/host.ts'

const home = mkdtempSync(join(tmpdir(), 'mf-quick-'))
const folder = join(home, 'here')
const environment = {
  ...process.env,
  MACFLEET_QUICKSTART_DIR: folder,
  MACFLEET_CONFIG_DIR: join(home, 'config'),
}
const quickstart = (...args: string[]) =>
  runCli(join(checkout, 'script/quickstart'), args, environment, 110_000)

afterAll(async () => {
  await stopLocalHost(folder)
  rmSync(home, { recursive: true, force: true })
})

test('brings a newcomer into a machine, twice, and leaves nothing running', async () => {
  const first = await quickstart()
  expect(first.code, first.stderr).toBe(0)
  expect(first.stdout).toMatch(/^Linux quickstart \S+ .* x86_64 GNU\/Linux$/m)
  for (const command of ['ssh quickstart', 'console quickstart', 'get vms', '--stop']) {
    expect(first.stderr).toContain(command)
  }
  const list = await runCli(join(checkout, 'bin/macfleet'), ['get', 'vms'], environment)
  expect(list.stdout).toMatch(/quickstart +Running +True/)
  const beganMs = performance.now()
  const second = await quickstart()
  expect(second.stdout).toBe(first.stdout)
  expect(performance.now() - beganMs).toBeLessThan(15_000)
  expect((await quickstart('--stop')).code).toBe(0)
  expect(processesOf(folder)).toEqual([])
  expect(readdirSync(home).sort()).toEqual(['config', 'here'])
}, 240_000)

test('tells what it does not understand', async () => {
  const { code, stderr } = await quickstart('--stop', 'now')
  expect(code).toBe(2)
  expect(stderr).toContain('usage: script/quickstart')
})
