import { parseArgs } from 'node:util'
import { failure, messageOf } from '../../base/errors.ts'
import { hostsMost, racksMost } from './plan.ts'

/** What `macfleetd dev` was asked to do. */
export interface DevOptions {
  hosts: number
  racks: number
  /** The hosts are left single ones. */
  separate: boolean
  /** Ends when everything runs, and leaves it running. */
  detach: boolean
  /** Ends what runs detached, and removes what was left behind. */
  stop: boolean
}

/** Reads the command line. @throws badRequest */
export function parseDevOptions(args: readonly string[]): DevOptions {
  try {
    const { values } = parseArgs({
      args: [...args],
      options: {
        hosts: { type: 'string', default: '3' },
        racks: { type: 'string', default: '1' },
        separate: { type: 'boolean', default: false },
        detach: { type: 'boolean', default: false },
        stop: { type: 'boolean', default: false },
      },
    })
    const hosts = count('--hosts', values.hosts, hostsMost)
    return { ...values, hosts, racks: count('--racks', values.racks, Math.min(hosts, racksMost)) }
  } catch (error) {
    throw failure('badRequest', { detail: messageOf(error) })
  }
}

function count(option: string, text: string, most: number): number {
  const value = /^\d{1,4}$/.test(text) ? Number(text) : 0
  if (value >= 1 && value <= most) return value
  throw new Error(`${option} takes a number from 1 to ${most}, not ${text}`)
}
