import { expect, onTestFinished, test } from 'vitest'
import { systemClock } from '../../base/clock.ts'
import { runCommand } from '../../base/command.ts'
import { defaultLimits } from '../../base/limits.ts'
import { silentLog } from '../../base/log.ts'
import { systemRandom } from '../../base/random.ts'
import { createMemoryStore } from '../../cluster/store/memory.ts'
import { temporaryFolder } from '../../test/support/temporary-folder.ts'
import { completeConfig } from '../config.ts'
import { singleOperations } from './single-operations.ts'
import { createTransitions } from './transitions.ts'

test('a fleet is not begun without etcd: the host serves on', async () => {
  const needs = { clock: systemClock, random: systemRandom, limits: defaultLimits, log: silentLog }
  const store = createMemoryStore(needs)
  onTestFinished(() => store.close())
  const transitions = createTransitions(needs)
  const fleet = { address: '127.0.0.1', etcd: 'no-such-etcd' }
  const config = completeConfig({ dataDir: temporaryFolder(), hostName: 'mac-1', fleet })
  const operations = singleOperations(config, { ...needs, run: runCommand, store, transitions })
  await expect(operations.init()).rejects.toMatchObject({ code: 'commandMissing' })
  expect(transitions.current()).toBeUndefined()
  expect(await operations.status()).toMatchObject({ mode: 'single' })
})
