import { expect, onTestFinished, test } from 'vitest'
import type { CommandRunner } from '../base/command.ts'
import { defaultLimits } from '../base/limits.ts'
import { silentLog } from '../base/log.ts'
import { createManualClock } from '../base/manual-clock.ts'
import { systemRandom } from '../base/random.ts'
import { memberKey } from '../cluster/fleet/keys.ts'
import { createMemoryStore } from '../cluster/store/memory.ts'
import { completeConfig } from './config.ts'
import { followFirewall } from './guest-firewall.ts'

test.skipIf(process.getuid?.() !== 0)('guests are kept off hosts of other racks', async () => {
  const clock = createManualClock()
  const needs = { clock, random: systemRandom, log: silentLog, limits: defaultLimits }
  const store = createMemoryStore(needs)
  onTestFinished(() => store.close())
  const put = (name: string, host: string) =>
    store.transaction({
      compare: [],
      operations: [{ put: memberKey(name), value: { name, address: { host } } }],
    })
  await put('mac-1', '203.0.113.7')
  // A host may say anything of itself; it does not cost the firewall.
  await put('mac-2', '0.0.0.0/0; drop')
  const rules: string[] = []
  const run: CommandRunner = async (_command, args, options) => {
    if (args[0] === '-f') rules.push(String(options.input))
    return { stdout: '', stderr: '', code: 0 }
  }
  const config = completeConfig({ hostName: 'mac-1' })
  const host = { containment: { root: true, systemd: false, firewall: true } }
  onTestFinished(followFirewall(config, host, { clock, run, log: silentLog, store }))
  await expect.poll(() => rules.at(-1)).toContain('203.0.113.7/32')
  expect(rules.at(-1)).not.toContain('0.0.0.0/0')
  await put('mac-3', '2001:db8::7')
  await expect
    .poll(async () => {
      await clock.advance(10_000)
      return rules.at(-1)
    })
    .toContain('2001:db8::7/128')
  expect(host.containment.firewall).toBe(true)
  const raised = rules.length
  await clock.advance(30_000)
  expect(rules).toHaveLength(raised)
})
