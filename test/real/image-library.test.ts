import { mkdirSync, writeFileSync } from 'node:fs'
import { chmod, open, readFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import type { Image } from '../../resources/image.ts'
import { microGuestIsBuilt } from '../support/demo-guest.ts'
import { createTestHost, isReady, readApi, until } from '../support/host.ts'
import { noise } from '../support/images.ts'
import { skopeo, startTestRegistry } from '../support/registry.ts'
import { temporaryFolder } from '../support/temporary-folder.ts'

const guests = join(import.meta.dirname, '../../.macfleet/guests')

/** Changes one byte of a file, whatever its mode. */
async function damage(path: string, at: number): Promise<void> {
  await chmod(path, 0o644)
  const handle = await open(path, 'r+')
  await handle.write(noise(1), 0, 1, at)
  await handle.close()
}

test.runIf(microGuestIsBuilt)(
  'an image that skopeo put into a library is listed, checked, run and repaired',
  async () => {
    const registry = await startTestRegistry()
    onTestFinished(() => registry.stop())
    const library = temporaryFolder()
    const host = await createTestHost({
      registries: { [registry.host]: { plainHttp: true } },
      imageLibrary: library,
      imageQuota: '110Mi',
    })
    onTestFinished(() => host.remove())
    expect(await host.must('image', 'library')).toBe('')
    await host.must(
      ...['image', 'import', join(guests, 'micro.raw'), '--name', 'made'],
      ...['--kernel', join(guests, 'vmlinuz'), '--initrd', join(guests, 'initrd')],
      ...['--command-line', 'console=ttyS0 quiet no_timer_check'],
    )
    await host.must('image', 'push', 'made', `${registry.host}/team/micro:1`)
    mkdirSync(join(library, 'team'))
    await skopeo([
      ...['copy', '-q', '--src-tls-verify=false', `docker://${registry.host}/team/micro:1`],
      `oci:${join(library, 'team/micro')}:1`,
    ])
    await host.must('image', 'rm', 'made')
    await registry.stop()

    const listed = JSON.parse(await host.must('image', 'library', 'list', '-o', 'json'))
    expect(listed).toMatchObject({ isWhole: true, entries: [{ name: 'team/micro:1' }] })
    expect(await host.must('image', 'library', 'check', 'team/micro:1')).toContain('wrong: []')
    await host.must('image', 'pull', 'library:team/micro:1', '--name', 'micro')
    await host.must('run', 'micro', '--name', 'vm', '--cpu', '100m', '--memory', '128Mi')
    await host.untilMachine('vm', isReady)

    // What rots on the disk comes again from the library.
    const path = '/apis/macfleet.dev/v1/namespaces/default/images/micro'
    const inspected = await readApi<{ diskPath: string }>(host.host.socket, `${path}/inspect`)
    const right = await readFile(inspected.diskPath)
    const at = right.findIndex(byte => byte !== 0 && byte !== noise(1)[0])
    await damage(inspected.diskPath, at)
    await damage(join(dirname(inspected.diskPath), 'kernel'), 5000)
    expect(await host.macfleet('image', 'verify', 'micro')).toMatchObject({ code: 1 })
    const repaired = await host.must('image', 'verify', 'micro', '--repair', '-o', 'json')
    expect(JSON.parse(repaired).bad).toMatchObject([
      { file: 'kernel', isRepaired: true },
      { file: 'disk', isRepaired: true },
    ])
    expect((await readFile(inspected.diskPath)).equals(right)).toBe(true)
    expect(JSON.parse(await host.must('image', 'verify', 'micro', '-o', 'json')).bad).toEqual([])
    expect(await host.must('describe', 'image', 'micro')).toContain('Repaired')

    const { spec, status } = await readApi<Image>(host.host.socket, path)
    expect([spec.source?.library, status?.phase]).toEqual(['team/micro:1', 'Ready'])
    const blob = `${status?.resolved?.split('@')[1] ?? ''}`.replace('sha256:', '')
    await damage(join(library, 'team/micro/blobs/sha256', blob), 3)
    expect(await host.macfleet('image', 'library', 'check', 'team/micro')).toMatchObject({
      code: 1,
    })
    await host.must('delete', 'vm', 'vm')

    // It can be had again and nobody uses it: it makes room for what can not.
    await host.must('image', 'place', 'micro', '--copies', '0')
    const large = join(library, 'large.raw')
    writeFileSync(large, noise(90 * 1024 * 1024))
    const holders = async () => (await readApi<Image>(host.host.socket, path)).status
    expect(await holders()).toMatchObject({ hosts: [expect.any(String)] })
    await until('it is to be held by nobody', async () =>
      (await holders())?.copyHosts?.length ? undefined : true,
    )
    await host.must('image', 'import', large)
    await until('the host says that it has it no more', async () =>
      (await holders())?.hosts?.length === 0 ? true : undefined,
    )
    expect(await holders()).toMatchObject({ phase: 'Ready' })
    await host.must('image', 'rm', 'micro')
    await until('it is gone', async () =>
      (await readApi<Image>(host.host.socket, path).catch(() => undefined)) ? undefined : true,
    )
  },
  60_000,
)
