import { formatAge } from '../../resources/duration.ts'
import type { Paint } from './colour.ts'
import type { FleetView, MemberView } from './fleet-client.ts'
import { createTablePrinter } from './table.ts'
import { printable } from './text.ts'

/** The lines of `macfleet cluster status`. */
export async function fleetLines(view: FleetView, paint: Paint, nowMs: number): Promise<string[]> {
  const lines =
    view.mode === 'fleet'
      ? [printable(`Fleet ${view.fleetId}, led by ${view.leader || 'nobody'}`)]
      : [printable(`${view.host} is a single host; \`macfleet cluster init\` makes it a fleet`)]
  if (!view.isStoreAvailable) {
    const since = Date.parse(view.unavailableSince)
    const age = Number.isNaN(since) ? '' : ` for ${formatAge(nowMs - since)}`
    const why = view.storeError === '' ? '' : `: ${view.storeError}`
    lines.push(paint('red', printable(`No decisions can be made${age}${why}`)))
    lines.push('Guests run on. Bring back hosts that vote, or restore a backup.')
  }
  if (view.recoveringSince !== '') {
    const text = printable(`Recovering since ${view.recoveringSince}: nothing is placed yet`)
    lines.push(paint('yellow', text))
  }
  const { transition } = view
  if (transition !== undefined && transition.state !== 'done') {
    lines.push(printable(`${transition.kind} ${transition.state}: ${transition.message}`))
  }
  if (view.members.length > 0) {
    lines.push('')
    const headings = ['Name', 'Status', 'Rack', 'Address', 'Store', 'Heard', 'Version']
    const rows = view.members.map(member => memberRow(member, view.leader))
    lines.push(...(await createTablePrinter(paint).lines({ headings, rows })))
  }
  for (const warning of view.warnings) lines.push(paint('yellow', printable(`! ${warning}`)))
  return lines
}

function memberRow(member: MemberView, leader: string): string[] {
  const state = member.state !== 'Approved' ? member.state : member.isAlive ? 'Ready' : 'NotReady'
  const heard = member.heardAgoMs
  return [
    member.name === leader ? `${member.name} *` : member.name,
    state,
    member.rack || '-',
    member.address || '-',
    member.voter || '-',
    heard === undefined ? '-' : `${(heard / 1000).toFixed(1)}s`,
    member.version || '-',
  ].map(printable)
}
