/**
 * Reads TypeScript as text, well enough for the rules of tidy.test.ts: the source is formatted by
 * biome, so that where things begin and end can be told by lines and indentation.
 */

/** The text with comments blanked out; strings stay. */
export function withoutComments(text: string): string {
  return text.replace(/\/\*[\s\S]*?\*\//g, '').replace(/(^|[\s;{(,])\/\/.*$/gm, '$1')
}

/** The names of all modules that a file imports, statically, by type, or by `import('...')`. */
export function importsOf(text: string): string[] {
  const code = withoutComments(text)
  const statements = /^(?:import|export)\b[^'"`;]*?\bfrom\s+['"]([^'"]+)['"]/gm
  const bare = /^import\s+['"]([^'"]+)['"]/gm
  const dynamic = /\bimport\(\s*['"]([^'"]+)['"]\s*\)/g
  return [statements, bare, dynamic].flatMap(pattern =>
    [...code.matchAll(pattern)].map(match => match[1] ?? ''),
  )
}

/** A function: the line it begins at (from 1) and how many lines its body has. */
export interface FoundFunction {
  line: number
  lines: number
}

/**
 * Functions that do something themselves. A factory that returns an object of small functions is
 * measured by its own lines: those of the functions inside it count for themselves.
 */
export function functionsOf(text: string): FoundFunction[] {
  const lines = text.split('\n')
  const opened: { line: number; indent: number; inner: number }[] = []
  const found: FoundFunction[] = []
  lines.forEach((line, index) => {
    const indent = line.length - line.trimStart().length
    const current = opened.at(-1)
    if (current !== undefined && indent === current.indent && /^\s*[})]/.test(line)) {
      opened.pop()
      const lineCount = index - current.line + 1
      found.push({ line: current.line + 1, lines: lineCount - current.inner })
      const outer = opened.at(-1)
      if (outer !== undefined) outer.inner += lineCount
    }
    if (startsFunction(line)) opened.push({ line: index, indent, inner: 0 })
  })
  return found
}

function startsFunction(line: string): boolean {
  if (!/\{\s*$/.test(line)) return false
  if (/^\s*(if|for|while|switch|else|try|catch|finally|do|return \{|\} )\b/.test(line)) return false
  return /\bfunction\b|=>\s*\{\s*$|^\s*(async |static |\*|get |set )*[\w[\]'"]+\(.*\).*\{\s*$/.test(
    line,
  )
}
