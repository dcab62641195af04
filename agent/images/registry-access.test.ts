import { expect, test } from 'vitest'
import { systemClock } from '../../base/clock.ts'
import { defaultLimits } from '../../base/limits.ts'
import { silentLog } from '../../base/log.ts'
import { systemRandom } from '../../base/random.ts'
import { createObjects } from '../../cluster/objects.ts'
import { createMemoryStore } from '../../cluster/store/memory.ts'
import { registryAccess } from './registry-access.ts'

const needs = { clock: systemClock, random: systemRandom, limits: defaultLimits, log: silentLog }

test('a registry is trusted with addresses of this host when the operator named it', async () => {
  const objects = createObjects({}, { ...needs, store: createMemoryStore(needs) })
  const config = {
    registries: { '127.0.0.1:5000': {} },
    registryCredentialsFile: '/nonexistent/credentials.json',
  }
  const accessTo = (host: string) =>
    registryAccess({ host, namespace: 'default' }, { config, objects })
  expect(await accessTo('127.0.0.1:5000')).toEqual({ host: '127.0.0.1:5000' })
  for (const host of [
    '127.0.0.1:5001',
    '169.254.169.254',
    'registry.example.test',
    'constructor',
  ]) {
    expect(await accessTo(host)).toEqual({ host, outwardOnly: true })
  }
})
