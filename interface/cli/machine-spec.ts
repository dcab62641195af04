import { failure } from '../../base/errors.ts'

/** A port of the guest as `--port` gives it. */
export interface PortOption {
  guestPort: number
  hostPort?: number
  protocol: 'TCP' | 'UDP'
}

const wrong = (detail: string) => failure('usageWrong', { detail, command: 'macfleet run' })

/**
 * Reads `80`, `8080:80` (host first, as `ssh -L` has it) and `53/udp`.
 * @throws usageWrong
 */
export function readPort(text: string): PortOption {
  const match = /^(?:(\d{1,5}):)?(\d{1,5})(?:\/(tcp|udp))?$/i.exec(text)
  const [, host, guest, protocol] = match ?? []
  const guestPort = Number(guest)
  const hostPort = host === undefined ? undefined : Number(host)
  if (match === null || !isPort(guestPort) || (hostPort !== undefined && !isPort(hostPort))) {
    throw wrong(`--port takes GUEST, HOST:GUEST or either with /udp, not ${text}`)
  }
  return {
    guestPort,
    ...(hostPort === undefined ? {} : { hostPort }),
    protocol: protocol?.toLowerCase() === 'udp' ? 'UDP' : 'TCP',
  }
}

const isPort = (port: number): boolean => port >= 1 && port <= 65_535

/** The ports that were asked for, with SSH's first unless it is there or not wanted. */
export function withSshPort(ports: readonly PortOption[], wanted: boolean): PortOption[] {
  const there = ports.some(port => port.guestPort === 22 && port.protocol === 'TCP')
  return wanted && !there ? [{ guestPort: 22, protocol: 'TCP' }, ...ports] : [...ports]
}

/**
 * Reads `--label KEY=VALUE` options.
 * @throws usageWrong
 */
export function readLabels(texts: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    texts.map(text => {
      const at = text.indexOf('=')
      if (at <= 0) throw wrong(`--label takes KEY=VALUE, not ${text}`)
      return [text.slice(0, at), text.slice(at + 1)]
    }),
  )
}

/** A name made of an image's, short enough to stand before a suffix, and fit to be a host name. */
export function nameStem(image: string): string {
  const stem = image
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .slice(0, 50)
    .replace(/^-+|-+$/g, '')
  return stem === '' ? 'vm' : stem
}
