import { failure } from '../../base/errors.ts'

/** Objects of the API are at most some ten levels deep; what is deeper is no object of ours. */
const mostLevels = 64

/**
 * Parses a JSON text (RFC 8259) from outside.
 * @throws badRequest when it is no JSON, is nested too deeply, has a key twice in one object
 *   (readers differ in which one counts) or the key `__proto__`
 */
export function parseJsonText(text: string): unknown {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (error) {
    const detail = error instanceof Error ? error.message.slice(0, 200) : ''
    throw failure('badRequest', { detail: `the body is no JSON: ${detail}` })
  }
  checkText(text)
  return value
}

/** A string, or one of the characters that open, close or part what holds values. */
const token = /"[^"\\]*(?:\\.[^"\\]*)*"|[{}[\],]/g

/** Goes once through a text that is known to be JSON, without recursion. */
function checkText(text: string): void {
  /** Keys of each open object; undefined for an open array. */
  const open: (Set<string> | undefined)[] = []
  let keyIsNext = false
  for (const [word] of text.matchAll(token)) {
    if (word === '{' || word === '[') {
      open.push(word === '{' ? new Set() : undefined)
      keyIsNext = word === '{'
      if (open.length > mostLevels) {
        throw failure('badRequest', { detail: `the body is nested over ${mostLevels} levels deep` })
      }
    } else if (word === '}' || word === ']') {
      open.pop()
      keyIsNext = false
    } else if (word === ',') {
      keyIsNext = open.at(-1) !== undefined
    } else if (keyIsNext) {
      addKey(open.at(-1), JSON.parse(word))
      keyIsNext = false
    }
  }
}

function addKey(keys: Set<string> | undefined, key: string): void {
  if (key === '__proto__') throw failure('badRequest', { detail: 'unknown field "__proto__"' })
  if (keys?.has(key)) {
    throw failure('badRequest', { detail: `the field "${key.slice(0, 100)}" is there twice` })
  }
  keys?.add(key)
}
