import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { guestFolder, makeGuestFolder } from './guest-folder.ts'
import { writeSmcKey } from './smc-key.ts'

test('the SMC key has 64 characters, and can not end its line', async () => {
  const root = await mkdtemp(join(tmpdir(), 'macfleet-smc-'))
  try {
    const roots = { dataRoot: join(root, 'data'), runRoot: join(root, 'run') }
    const folder = guestFolder(roots, '0b1c2d3e-4f50-4617-8293-a4b5c6d7e8f9')
    await makeGuestFolder(folder, undefined)
    const key = 'k'.repeat(64)
    for (const wrong of ['', key.slice(1), `${key}k`, `"${key.slice(1)}`, `\n${key.slice(1)}`]) {
      await expect(writeSmcKey(folder, wrong, undefined)).rejects.toThrow('exactly 64 characters')
    }
    expect(await readdir(folder.path)).toEqual(['guest'])
    await writeSmcKey(folder, key, undefined)
    expect(await readFile(folder.smcKey, 'utf8')).toContain(`osk = "${key}"\n`)
  } finally {
    await rm(root, { recursive: true })
  }
})
