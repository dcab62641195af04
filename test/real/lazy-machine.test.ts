import { createHash, randomBytes } from 'node:crypto'
import { statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { findCondition } from '../../resources/condition.ts'
import type { VirtualMachine } from '../../resources/virtual-machine.ts'
import { microGuestIsBuilt } from '../support/demo-guest.ts'
import { createTestHost, isReady, type TestHost, until } from '../support/host.ts'
import { startTestRegistry, type TestRegistry } from '../support/registry.ts'
import { type SlowLink, startSlowLink } from '../support/slow-link.ts'
import { temporaryFolder } from '../support/temporary-folder.ts'

const guests = join(import.meta.dirname, '../../.macfleet/guests')
const imageBytes = 32 << 20
const content = randomBytes(imageBytes)
const checksum = createHash('sha256').update(content).digest('hex')

let registry: TestRegistry
let link: SlowLink
let maker: TestHost
let host: TestHost

beforeAll(async () => {
  registry = await startTestRegistry()
  link = await startSlowLink(registry.host)
  const plainHttp = { plainHttp: true }
  const settings = { registries: { [registry.host]: plainHttp, [link.host]: plainHttp } }
  maker = await createTestHost(settings)
  host = await createTestHost(settings)
}, 60_000)
afterAll(async () => {
  await Promise.allSettled([maker?.remove(), host?.remove()])
  await link?.close()
  await registry?.stop()
})

const condition = (machine: VirtualMachine, type: string) =>
  findCondition(machine.status?.conditions, type)

const inGuest = async (command: string): Promise<string> =>
  (await host.macfleet('ssh', 'vm', '--', command)).stdout.trim()

describe.runIf(microGuestIsBuilt)('a machine whose image is on its way', () => {
  test('runs, outlives its daemon and its source, and has it in the end', async () => {
    const disk = join(temporaryFolder(), 'disk.raw')
    writeFileSync(disk, content)
    const [kernel, initrd] = [join(guests, 'vmlinuz'), join(guests, 'initrd')]
    await maker.must(
      ...['image', 'import', disk, '--name', 'disk', '--kernel', kernel, '--initrd', initrd],
      ...['--command-line', 'console=ttyS0 quiet no_timer_check'],
    )
    await maker.must('image', 'push', 'disk', `${registry.host}/team/disk:1`)

    // What a start needs comes at once, the disk at 1 MiB a second: nobody waits for that.
    link.limit(1 << 20, statSync(kernel).size + statSync(initrd).size + (2 << 20))
    await host.must('image', 'pull', `${link.host}/team/disk:1`, '--name', 'disk', '--lazy')
    await host.must('run', 'disk', '--name', 'vm', '--cpu', '100m', '--memory', '128Mi')
    const ready = await host.untilMachine('vm', isReady)
    expect(condition(ready, 'ImageLocal')).toMatchObject({ status: 'False', reason: 'Filling' })
    expect(ready.status?.bootTimings?.sshMs).toBeGreaterThan(0)

    await inGuest('sha256sum /dev/vda >/tmp/sum 2>&1 &')
    await host.kill()
    await host.start()
    await host.untilMachine('vm', isReady)

    link.cut()
    const stalled = await host.untilMachine(
      'vm',
      machine => condition(machine, 'Ready')?.reason === 'ImageStalled',
    )
    expect(condition(stalled, 'ImageLocal')).toMatchObject({ reason: 'ImageStalled' })

    link.limit(Number.POSITIVE_INFINITY)
    link.mend()
    await host.untilMachine('vm', isReady)
    await host.untilMachine('vm', at => condition(at, 'ImageLocal')?.status === 'True')
    await link.close()
    const sum = await until('the guest has read its disk', async () => {
      const said = await inGuest('cat /tmp/sum')
      return said === '' ? undefined : said
    })
    expect(sum).toContain(checksum)
    const again = await inGuest('echo 3 >/proc/sys/vm/drop_caches; sha256sum /dev/vda')
    expect(again).toContain(checksum)
  })
})
