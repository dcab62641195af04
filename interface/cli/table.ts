import type { Table, TableRow } from '../../resources/table.ts'
import { type Paint, stateColour } from './colour.ts'
import { loadWidth, padTo, printable, type Width } from './text.ts'

const gap = '   '
/** Columns that hold a state, by their lower-case heading; a VM that is named Failed stays plain. */
const stateColumns = new Set(['phase', 'status', 'ready', 'type'])

/** Texts in columns: one heading each, then rows. */
export interface Grid {
  headings: readonly string[]
  rows: readonly (readonly string[])[]
}

/** Which of the server's columns are shown. */
export interface GridOptions {
  /** The columns of priority 1 too. */
  wide: boolean
  /** A column with the namespace before all others. */
  withNamespace: boolean
}

/** The server's table as texts that are safe to print. */
export function gridOf(table: Table, options: GridOptions): Grid {
  const shown = table.columnDefinitions
    .map((column, index) => ({ column, index }))
    .filter(({ column }) => options.wide || column.priority === 0)
  const headings = shown.map(({ column }) => column.name)
  const cells = (row: TableRow) => shown.map(({ index }) => cellText(row.cells[index]))
  if (!options.withNamespace) return { headings, rows: table.rows.map(cells) }
  return {
    headings: ['Namespace', ...headings],
    rows: table.rows.map(row => [cellText(row.object.metadata.namespace), ...cells(row)]),
  }
}

function cellText(cell: unknown): string {
  const text = cell === undefined || cell === null ? '' : printable(String(cell))
  return text === '' ? '-' : text
}

/** Prints rows under one heading; rows that come later keep to the columns of those before. */
export interface TablePrinter {
  /** The lines of some more rows; the heading is before the first. */
  lines(grid: Grid): Promise<string[]>
}

/** Makes the printer of one table. `heading` says whether it begins with its headings. */
export function createTablePrinter(paint: Paint, heading = true): TablePrinter {
  let columns: number[] = []
  let begun = false
  return {
    async lines(grid) {
      const headings = grid.headings.map(name => name.toUpperCase())
      const width = await loadWidth([headings, ...grid.rows].flat())
      columns = headings.map((name, index) => {
        const widths = grid.rows.map(row => width(row[index] ?? ''))
        return Math.max(columns[index] ?? 0, width(name), ...widths)
      })
      const lines = grid.rows.map(row => line(row, columns, width, colourOf(grid, paint)))
      if (begun || !heading) return lines
      begun = true
      return [line(headings, columns, width, text => paint('bold', text)), ...lines]
    },
  }
}

type PaintCell = (text: string, index: number) => string

function colourOf(grid: Grid, paint: Paint): PaintCell {
  return (text, index) => {
    if (!stateColumns.has(grid.headings[index]?.toLowerCase() ?? '')) return text
    const colour = stateColour(text)
    return colour === undefined ? text : paint(colour, text)
  }
}

function line(
  cells: readonly string[],
  columns: readonly number[],
  width: Width,
  paintCell: PaintCell,
): string {
  const last = cells.length - 1
  return cells
    .map((cell, index) => {
      const padding = index === last ? '' : padTo('', (columns[index] ?? 0) - width(cell), width)
      return paintCell(cell, index) + padding
    })
    .join(gap)
}
