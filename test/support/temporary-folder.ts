import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'

/** A folder of the running test's own; it goes when the test ends, whether it passed or not. */
export function temporaryFolder(): string {
  const path = mkdtempSync(join(tmpdir(), 'macfleet-test-'))
  onTestFinished(() => rmSync(path, { recursive: true, force: true }))
  return path
}
