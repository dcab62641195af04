import { mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { checkout } from '../../agent/dev/local-host.ts'
import { writeNoise } from '../cluster/image-rack.ts'
import { createTestHost, isReady, type TestHost } from '../support/host.ts'
import { startTestRegistry, type TestRegistry } from '../support/registry.ts'
import { type Bench, figureOf } from './harness.ts'

const MiB = 1024 * 1024
const changeBytes = 10 * MiB
const guests = join(checkout, '.macfleet/guests')

/**
 * What a push moves after a guest has changed 10 MiB of its disk (noise, which nothing makes
 * smaller), at one place or in 2,560 blocks all over it: committed while it runs, and pushed.
 */
export const bench: Bench = {
  timeoutMs: 30 * 60_000,
  async run({ quick, say, afterwards }) {
    const diskBytes = (quick ? 128 : 1024) * MiB
    const registry = await startTestRegistry()
    afterwards(() => registry.stop())
    const host = await createTestHost({ registries: { [registry.host]: { plainHttp: true } } })
    afterwards(() => host.remove())
    const folder = mkdtempSync(join(tmpdir(), 'macfleet-bench-'))
    afterwards(() => rmSync(folder, { recursive: true, force: true }))
    const disk = writeNoise(folder, 'noise.raw', diskBytes)
    await host.must(
      ...['image', 'import', disk, '--name', 'base', '--format', 'raw'],
      ...['--kernel', join(guests, 'vmlinuz'), '--initrd', join(guests, 'initrd')],
      ...['--command-line', 'console=ttyS0 quiet no_timer_check'],
    )
    const push = (name: string, tag: string) => pushed(host, registry, name, tag)
    say('the base goes to the registry')
    const whole = await push('base', 'base')
    const strideBlocks = Math.floor(diskBytes / 4096 / 2560)
    const changes = {
      contiguous: 'dd if=/dev/urandom of=/dev/vda bs=1M count=10 seek=32 conv=notrunc',
      scattered: `i=0; while [ $i -lt 2560 ]; do
        dd if=/dev/urandom of=/dev/vda bs=4096 count=1 seek=$((i * ${strideBlocks})) conv=notrunc
        i=$((i + 1)); done`,
    }
    const moved: Record<string, number> = {}
    for (const [name, script] of Object.entries(changes)) {
      say(`a guest changes 10 MiB: ${name}`)
      await host.must('run', 'base', '--name', name, '--cpu', '1', '--memory', '256Mi')
      await host.untilMachine(name, isReady, 120_000)
      await host.must('ssh', name, '--', `{ ${script}; } 2>/dev/null; sync`)
      await host.must('image', 'commit', name, `${name}-image`)
      moved[name] = (await push(`${name}-image`, name)) / changeBytes
      await host.must('delete', 'vm', name)
    }
    const again = await push('scattered-image', 'again')
    const most = { value: 1.2, bound: 'atMost' } as const
    return {
      pushContiguous: figureOf(
        'moved after 10 MiB in a row',
        'x',
        [moved['contiguous'] ?? 0],
        most,
      ),
      pushScattered: figureOf('after 2,560 blocks all over', 'x', [moved['scattered'] ?? 0], most),
      pushAgain: figureOf('bytes moved by a second push (a manifest)', 'B', [again], {
        value: 64 * 1024,
        bound: 'atMost',
      }),
      pushWhole: figureOf('moved by the first push, of its size', 'x', [whole / diskBytes]),
    }
  },
}

/** @returns bytes of all blobs and manifests that the registry got by it */
async function pushed(
  host: TestHost,
  registry: TestRegistry,
  name: string,
  tag: string,
): Promise<number> {
  const before = storedBytes(registry)
  await host.must('image', 'push', name, `${registry.host}/bench/push:${tag}`)
  return storedBytes(registry) - before
}

function storedBytes({ folder }: TestRegistry): number {
  const blobs = join(folder, 'storage/docker/registry/v2/blobs')
  let names: string[] = []
  try {
    names = readdirSync(blobs, { recursive: true, encoding: 'utf8' })
  } catch {
    // Nothing was pushed yet.
  }
  const files = names.filter(name => name.endsWith('/data'))
  return files.reduce((sum, file) => sum + statSync(join(blobs, file)).size, 0)
}
