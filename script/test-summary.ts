import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

/** The part of vitest's JSON report that counts. */
interface Report {
  numPassedTests: number
  numFailedTests: number
  numPendingTests: number
  numTotalTests: number
}

const [folder] = process.argv.slice(2)
if (folder === undefined) throw new Error('usage: test-summary.ts FOLDER')

/** Tests passed and failed of one check: those of its report, or the check itself. */
function countsOf(name: string, outcome: string): { passed: number; failed: number } {
  const path = join(folder ?? '', `${name}.json`)
  const own = { passed: outcome === 'passed' ? 1 : 0, failed: outcome === 'passed' ? 0 : 1 }
  if (!existsSync(path)) return own
  const report = JSON.parse(readFileSync(path, 'utf8')) as Report
  // A file that could not even be loaded fails the run without a failed test.
  const failed = Math.max(report.numFailedTests, own.failed)
  return { passed: report.numPassedTests, failed }
}

const rows = readFileSync(join(folder, 'checks'), 'utf8')
  .trim()
  .split('\n')
  .map(line => {
    const [name = '', outcome = '', seconds = ''] = line.split('\t')
    return { name, outcome, seconds, ...countsOf(name, outcome) }
  })

const cells = (...parts: (string | number)[]) =>
  parts.map(part => String(part).padStart(9)).join(' ')
console.log(`\n${cells('check', 'outcome', 'passed', 'failed', 'seconds')}`)
for (const row of rows) {
  console.log(cells(row.name, row.outcome, row.passed, row.failed, row.seconds))
}
const passed = rows.reduce((sum, row) => sum + row.passed, 0)
const failed = rows.reduce((sum, row) => sum + row.failed, 0)
console.log(`\n${passed} passed, ${failed} failed`)
process.exit(failed === 0 && rows.every(row => row.outcome === 'passed') ? 0 : 1)
