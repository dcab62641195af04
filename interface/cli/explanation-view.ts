import type { Paint } from './colour.ts'
import { createTablePrinter } from './table.ts'
import { printable } from './text.ts'
import { isRecord, memberAt, textOf } from './untyped.ts'

/** The lines that say why a machine is where it is, or would go, or why it goes nowhere. */
export async function explanationLines(
  name: string,
  value: unknown,
  paint: Paint,
): Promise<string[]> {
  const [current, best] = [textOf(memberAt(value, 'current')), textOf(memberAt(value, 'best'))]
  const lines = [headline(name, current, best)]
  const place = memberAt(value, 'place')
  if (typeof place === 'number') {
    lines.push(
      `It is number ${place} of ${String(memberAt(value, 'queued'))} that wait for a host.`,
    )
  }
  if (current === '' && best === '') {
    for (const reason of recordsAt(value, 'reasons')) {
      const count = Number(reason['hosts'])
      lines.push(`  ${count} ${count === 1 ? 'host' : 'hosts'}: ${textOf(reason['text'])}`)
    }
  }
  const rows = recordsAt(value, 'hosts').map(row)
  if (rows.length === 0) return [...lines, 'There are no hosts.'].map(printable)
  const headings = ['Host', 'Score', 'Room', 'Image', 'Spread', 'Taints', 'Objections']
  const table = await createTablePrinter(paint).lines({ headings, rows })
  return [...lines.map(printable), '', ...table]
}

function headline(name: string, current: string, best: string): string {
  if (current !== '') {
    if (best === '' || best === current) return `${name} is on ${current}.`
    return `${name} is on ${current}; started now it would go to ${best}.`
  }
  return best === '' ? `${name} fits nowhere:` : `${name} would go to ${best}.`
}

function row(verdict: Record<string, unknown>): string[] {
  const number = (path: string) => {
    const value = memberAt(verdict, path)
    return typeof value === 'number' ? value.toFixed(2) : '-'
  }
  const objections = verdict['objections']
  const texts = Array.isArray(objections) ? objections.map(textOf) : []
  return [
    textOf(verdict['host']),
    number('score'),
    ...['room', 'image', 'spread', 'taints'].map(part => number(`parts.${part}`)),
    texts.join('; ') || '-',
  ].map(printable)
}

function recordsAt(value: unknown, path: string): Record<string, unknown>[] {
  const found = memberAt(value, path)
  return Array.isArray(found) ? found.filter(isRecord) : []
}
