import { execFileSync } from 'node:child_process'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { shellLine } from './exec.ts'

/** What a shell makes of a line, word by word. */
function wordsOf(line: string): string[] {
  const printed = execFileSync('sh', ['-c', `printf '%s\\0' ${line}`], { encoding: 'utf8' })
  return printed.split('\0').slice(0, -1)
}

test('each word reaches the far shell as it is', () => {
  const words = ["it's", '$(reboot)', '`id`', '', 'a b', '-rf', '*', '"', '\\', 'new\nline', '!x']
  expect(wordsOf(shellLine(words))).toEqual(words)
})

test('so does whatever else a word is made of', () => {
  const noise = fc.string({ unit: fc.constantFrom("'", '"', '\\', '$', '(', ';', ' ', '\n', 'é') })
  fc.assert(
    fc.property(fc.array(noise, { minLength: 1, maxLength: 20 }), words => {
      expect(wordsOf(shellLine(words))).toEqual(words)
    }),
    { numRuns: 20 },
  )
})
