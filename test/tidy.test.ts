import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { dirname, join, normalize } from 'node:path'
import { describe, expect, test } from 'vitest'
import { functionsOf, importsOf, withoutComments } from './support/source.ts'

/**
 * The rules of the house, checked. What each folder may import from, besides itself and packages; a
 * folder with a slash is more exact than the one that contains it.
 */
const mayImport: Record<string, readonly string[]> = {
  base: [],
  resources: ['base'],
  kvm: ['base', 'resources'],
  images: ['base', 'resources'],
  cluster: ['base', 'resources'],
  'interface/api': ['base', 'resources', 'kvm', 'images', 'cluster'],
  'interface/gateway': ['base', 'resources', 'kvm', 'images', 'cluster'],
  'interface/cli': ['base', 'resources'],
  'interface/web': ['base', 'resources'],
  agent: ['base', 'resources', 'kvm', 'images', 'cluster', 'interface/api', 'interface/gateway'],
}

const linesPerFile = 450
/** Tables of which each row stands for itself. */
const tables = ['base/error-table.ts']
const linesPerFunction = 70
const columns = 100

/** Every file that git tracks or would track. */
const tracked = execFileSync('git', ['ls-files', '-co', '--exclude-standard'], { encoding: 'utf8' })
  .split('\n')
  .filter(path => path !== '' && existsSync(path))
const sources = tracked.filter(path => path.endsWith('.ts'))
const texts = new Map(sources.map(path => [path, readFileSync(path, 'utf8')]))
const textOf = (path: string): string => texts.get(path) ?? ''
const isTest = (path: string): boolean =>
  path.endsWith('.test.ts') || path.startsWith('test/') || path.endsWith('/compliance.ts')
const product = sources.filter(path => !isTest(path) && folderOf(path) !== undefined)

function folderOf(path: string): string | undefined {
  return Object.keys(mayImport).find(folder => path.startsWith(`${folder}/`))
}

/** The files of ours that a file imports, as paths from the top. */
function localImports(path: string): string[] {
  return importsOf(textOf(path))
    .filter(name => name.startsWith('.'))
    .map(name => normalize(join(dirname(path), name)))
}

describe('imports', () => {
  test('go only to the left in the order of folders', () => {
    const wrong = product.flatMap(path => {
      const folder = folderOf(path) ?? ''
      const allowed = [folder, ...(mayImport[folder] ?? [])]
      return localImports(path)
        .filter(target => !allowed.some(other => target.startsWith(`${other}/`)))
        .map(target => `${path} imports ${target}`)
    })
    expect(wrong).toEqual([])
  })

  test('name files that exist, with their ending', () => {
    const wrong = sources.flatMap(path =>
      localImports(path)
        .filter(target => !existsSync(target) || !/\.\w+$/.test(target))
        .map(target => `${path} imports ${target}`),
    )
    expect(wrong).toEqual([])
  })

  test('have no cycles', () => {
    expect(findCycle(product)).toEqual([])
  })

  test('of the command line leave out whatever is slow to load or belongs to the daemon', () => {
    const heavy = /^(libp2p|@libp2p\/.*|etcd3|@grpc\/.*|fastify|@fastify\/.*|level|pino)$/
    const wrong = product
      .filter(path => path.startsWith('interface/cli/'))
      .flatMap(path => importsOf(textOf(path)).filter(name => heavy.test(name)))
    expect(wrong).toEqual([])
  })
})

/** A list of files each of which imports the next, and the last the first; empty when there is none. */
function findCycle(paths: readonly string[]): string[] {
  const done = new Set<string>()
  const visit = (path: string, trail: readonly string[]): string[] => {
    if (trail.includes(path)) return [...trail.slice(trail.indexOf(path)), path]
    if (done.has(path)) return []
    done.add(path)
    for (const next of localImports(path)) {
      const cycle = visit(next, [...trail, path])
      if (cycle.length > 0) return cycle
    }
    return []
  }
  for (const path of paths) {
    const cycle = visit(path, [])
    if (cycle.length > 0) return cycle
  }
  return []
}

describe('sources', () => {
  test('take time and chance from base/ only', () => {
    const forbidden =
      /\b(Date\.now|new Date\(\)|performance\.now|Math\.random|setTimeout\(|setInterval\(|randomUUID|randomBytes|process\.hrtime)/
    const wrong = product
      .filter(path => !path.startsWith('base/'))
      .filter(path => forbidden.test(withoutComments(textOf(path))))
    expect(wrong).toEqual([])
  })

  test(`have at most ${linesPerFile} lines of ${columns} columns`, () => {
    const wrong = sources.flatMap(path => {
      if (tables.includes(path)) return []
      const lines = textOf(path).split('\n')
      const long = lines.findIndex(
        line => line.length > columns && !/https?:|^\s*['"`/]/.test(line),
      )
      if (lines.length > linesPerFile && !tables.includes(path))
        return [`${path}: ${lines.length} lines`]
      return long < 0 ? [] : [`${path}:${long + 1}: ${lines[long]?.length} columns`]
    })
    expect(wrong).toEqual([])
  })

  test(`have functions of at most ${linesPerFunction} lines`, () => {
    const wrong = product.flatMap(path =>
      functionsOf(textOf(path))
        .filter(found => found.lines > linesPerFunction)
        .map(found => `${path}:${found.line}: ${found.lines} lines`),
    )
    expect(wrong).toEqual([])
  })

  test('say what every exported thing is', () => {
    const wrong = product.flatMap(path => {
      const lines = textOf(path).split('\n')
      return lines.flatMap((line, index) => {
        const declares = /^export (async )?(function|interface|type|const|class) (\w+)/.exec(line)
        const before = lines[index - 1] ?? ''
        const described = before.trimEnd().endsWith('*/') || /^export type .*from/.test(line)
        return declares !== null && !described ? [`${path}:${index + 1}: ${declares[3]}`] : []
      })
    })
    expect(wrong).toEqual([])
  })

  test('are all used by something that is started or tested', () => {
    const roots = sources.filter(
      path => path.endsWith('.test.ts') || /config\.ts$|^script\/|^test\/bench\//.test(path),
    )
    const entries = [
      'agent/main.ts',
      'agent/guardian/main.ts',
      'agent/dev/main.ts',
      'interface/cli/main.ts',
    ]
    const used = new Set<string>()
    const visit = (path: string): void => {
      if (used.has(path)) return
      used.add(path)
      for (const next of localImports(path)) visit(next)
      // Workers and programs that are started by their file's name rather than imported.
      for (const [, name] of textOf(path).matchAll(/['"]((?:\.{1,2}\/)[\w./-]+\.ts)['"]/g)) {
        if (name !== undefined) visit(normalize(join(dirname(path), name)))
      }
    }
    for (const path of [...roots, ...entries]) visit(path)
    expect(sources.filter(path => !used.has(path))).toEqual([])
  })

  test('carry no marks of unfinished work', () => {
    const marks = /\b(TODO|FIXME|XXX)\b|@ts-(ignore|expect-error)|\bas any\b|\.(only|skip)\(/
    const wrong = sources
      .filter(path => path !== 'test/tidy.test.ts')
      .filter(path => marks.test(textOf(path)))
    expect(wrong).toEqual([])
  })
})

describe('files', () => {
  test('hold no control characters, tabs in code or spaces at the end of lines', () => {
    const textual = tracked.filter(path =>
      /\.(ts|md|json|ya?ml|service|slice)$|^(bin|script)\//.test(path),
    )
    const wrong = textual.filter(path =>
      // biome-ignore lint/suspicious/noControlCharactersInRegex: that is what is looked for
      /[\x00-\x08\x0b-\x1f\x7f]|[ \t]+$/m.test(readFileSync(path, 'utf8')),
    )
    expect(wrong).toEqual([])
  })

  test('name no path of one machine and no registry', () => {
    const lock = JSON.parse(readFileSync('package-lock.json', 'utf8')) as {
      packages: Record<string, { resolved?: string }>
    }
    expect(Object.values(lock.packages).filter(entry => entry.resolved !== undefined)).toEqual([])
  })

  test('of documentation link to files that exist', () => {
    const wrong = tracked
      .filter(path => path.endsWith('.md'))
      .flatMap(path =>
        [...readFileSync(path, 'utf8').matchAll(/\]\(([^)#:]+)(#[^)]*)?\)/g)]
          .map(([, target]) => normalize(join(dirname(path), target ?? '')))
          .filter(target => !existsSync(target))
          .map(target => `${path} links to ${target}`),
      )
    expect(wrong).toEqual([])
  })
})
