import { chmodSync, existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test, vi } from 'vitest'
import { systemClock } from '../base/clock.ts'
import { silentLog } from '../base/log.ts'
import { temporaryFolder } from '../test/support/temporary-folder.ts'
import { startNotifier } from './notify.ts'

const components = { clock: systemClock, log: silentLog }

/** A folder with a `systemd-notify` that writes down what it is given. */
function recorder() {
  const folder = temporaryFolder()
  const record = join(folder, 'record')
  const program = join(folder, 'systemd-notify')
  writeFileSync(program, `#!/bin/sh\nprintf '%s\\n' "$1" >> ${record}\n`)
  chmodSync(program, 0o700)
  const environment = { PATH: `${folder}:${process.env['PATH']}`, NOTIFY_SOCKET: '/there' }
  const lines = () => (existsSync(record) ? readFileSync(record, 'utf8').trimEnd().split('\n') : [])
  return { environment, lines }
}

test('says nothing where there is no systemd', async () => {
  const { lines, environment } = recorder()
  const notifier = await startNotifier(
    { checkHealth: async () => {}, environment: { PATH: environment.PATH } },
    components,
  )
  notifier.status('well')
  await notifier.stop()
  expect(lines()).toEqual([])
})

test('says that it is ready, how it is and that it stops', async () => {
  const { lines, environment } = recorder()
  const notifier = await startNotifier({ checkHealth: async () => {}, environment }, components)
  notifier.status('two\n lines $(and) "more"')
  await notifier.stop()
  expect(lines()).toEqual(['READY=1', 'STATUS=two lines $(and) "more"', 'STOPPING=1'])
})

test('pings only while it is well', async () => {
  const { lines, environment } = recorder()
  let check = async (): Promise<void> => {}
  const notifier = await startNotifier(
    { checkHealth: () => check(), environment: { ...environment, WATCHDOG_USEC: '60000' } },
    components,
  )
  const pings = () => lines().filter(line => line === 'WATCHDOG=1').length
  const last = () => lines().at(-1)
  await vi.waitFor(() => expect(pings()).toBeGreaterThan(2))

  check = async () => {
    throw new Error('the store is gone')
  }
  await vi.waitFor(() => expect(last()).toBe('STATUS=not well: the store is gone'))
  const before = pings()
  check = () => new Promise(() => {})
  await vi.waitFor(() => expect(last()).toContain('the health check took longer'))
  expect(pings()).toBe(before)

  check = async () => {}
  await vi.waitFor(() => expect(pings()).toBeGreaterThan(before))
  expect(lines()).toContain('STATUS=well again')
  await notifier.stop()
  expect(last()).toBe('STOPPING=1')
})

test('pings nobody who waits for another process', async () => {
  const { lines, environment } = recorder()
  const watchdog = { WATCHDOG_USEC: '1000', WATCHDOG_PID: '1' }
  const init = { checkHealth: async () => {}, environment: { ...environment, ...watchdog } }
  const notifier = await startNotifier(init, components)
  await vi.waitFor(() => expect(lines()).toEqual(['READY=1']))
  await notifier.stop()
  expect(lines()).toEqual(['READY=1', 'STOPPING=1'])
})
