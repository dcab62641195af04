import { mkdtempSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { storeCompliance } from './compliance.ts'
import { openLevelStore } from './level.ts'

storeCompliance('level', () => {
  const base = mkdtempSync(join(tmpdir(), 'macfleet-store-'))
  let opened = 0
  const folder = () => join(base, String(opened))
  return {
    open: components => {
      opened++
      return openLevelStore({ folder: folder() }, components)
    },
    reopen: components => openLevelStore({ folder: folder() }, components),
    remove: () => rm(base, { recursive: true, force: true }),
  }
})
