import { type ChildProcess, spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { afterAll, describe, expect, it } from 'vitest'
import { systemClock } from '../../base/clock.ts'
import { defaultLimits } from '../../base/limits.ts'
import { silentLog } from '../../base/log.ts'
import { createSeededRandom, randomInteger, systemRandom } from '../../base/random.ts'
import { collect } from '../../cluster/store/compliance-tools.ts'
import { openLevelStore } from '../../cluster/store/level.ts'
import { repairLevelStore } from '../../cluster/store/level-repair.ts'
import type { Store } from '../../cluster/store/store.ts'

const base = mkdtempSync(join(tmpdir(), 'macfleet-store-real-'))
const children = new Set<ChildProcess>()

afterAll(() => {
  for (const child of children) child.kill('SIGKILL')
  rmSync(base, { recursive: true, force: true })
})

function open(folder: string): Promise<Store> {
  return openLevelStore(
    { folder },
    { clock: systemClock, random: systemRandom, log: silentLog, limits: defaultLimits },
  )
}

/** Starts a program of this folder; its lines are handed to `onLine` until it has ended. */
async function run(
  command: string[],
  onLine: (line: string, child: ChildProcess) => void,
): Promise<string> {
  const [program = '', ...args] = command
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] })
  children.add(child)
  let stderr = ''
  child.stderr.on('data', chunk => {
    stderr += chunk
  })
  createInterface({ input: child.stdout }).on('line', line => onLine(line, child))
  await new Promise(resolve => child.on('close', resolve))
  children.delete(child)
  return stderr
}

const program = (name: string) => join(import.meta.dirname, name)

describe('the level store', () => {
  it('loses no acknowledged write and tears no transaction when it is killed', async () => {
    const folder = join(base, 'killed')
    const seed = randomInteger(systemRandom, 2 ** 32)
    const random = createSeededRandom(seed)
    const acknowledged = new Map<number, string>()
    for (let round = 0; round < 8; round++) {
      const killAfter = 1 + randomInteger(random, 40)
      let lines = 0
      const stderr = await run(
        [process.execPath, program('./store-writer.ts'), folder],
        (line, child) => {
          const [revision, value = ''] = line.split(' ')
          acknowledged.set(Number(revision), value)
          if (++lines === killAfter) child.kill('SIGKILL')
        },
      )
      expect({ seed, lines: lines >= killAfter, stderr }).toEqual({ seed, lines: true, stderr: '' })
    }
    const store = await open(folder)
    const { entries, revision } = await store.list('')
    const written = new Map<number, unknown>()
    const current = new Map<string, unknown>()
    for (const batch of await collect(store, '', 1, revision)) {
      const [left, right, ...more] = batch.events
      expect({ seed, more }).toEqual({ seed, more: [] })
      expect({ seed, value: left?.entry?.value }).toEqual({ seed, value: right?.entry?.value })
      written.set(batch.revision, left?.entry?.value)
      for (const { key, entry } of batch.events) current.set(key, entry?.value)
    }
    expect([...written.keys()]).toEqual(
      Array.from({ length: revision - 1 }, (_, index) => index + 2),
    )
    for (const [one, value] of acknowledged) {
      expect({ seed, one, value: written.get(one) }).toEqual({ seed, one, value })
    }
    expect(new Map(entries.map(({ key, value }) => [key, value]))).toEqual(
      new Map([...current].sort(([a], [b]) => (a < b ? -1 : 1))),
    )
    await store.close()
  })

  it('is refused to a second process, and to the same one', async () => {
    const folder = join(base, 'locked')
    const store = await open(folder)
    await expect(open(folder)).rejects.toMatchObject({ code: 'storeLocked' })
    await expect(repairLevelStore(folder, { random: systemRandom })).rejects.toMatchObject({
      code: 'storeLocked',
    })
    const stderr = await run([process.execPath, program('./store-writer.ts'), folder], (_, child) =>
      child.kill('SIGKILL'),
    )
    expect(stderr).toContain(`another process has the store in ${folder} open`)
    await store.close()
    await (await open(folder)).close()
  })

  it('goes on reading when the disk is full, and writing when there is room again', async () => {
    const folder = join(base, 'small')
    mkdirSync(folder)
    const script = 'mount -t tmpfs -o size=6m tmpfs "$1" && exec "$0" "$2" "$1"'
    const namespace = process.getuid?.() === 0 ? '-m' : '-rm'
    const report: string[] = []
    const command = ['unshare', namespace, 'sh', '-c', script, process.execPath, folder]
    const stderr = await run([...command, program('./store-filler.ts')], line => report.push(line))
    expect({ report: report.map(line => JSON.parse(line)), stderr }).toEqual({
      report: [
        { refused: true, refusedAgain: true, readable: true, wroteAfterwards: true, lost: [] },
      ],
      stderr: '',
    })
  })
})
