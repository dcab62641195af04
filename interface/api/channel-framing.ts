import { isRecord } from './merge-patch.ts'
import type { Status } from './status.ts'
import type { TerminalSize } from './subresources.ts'

/**
 * The subprotocols of `kubectl exec` (kubernetes.io: "remotecommand"): the first byte of each
 * message names its channel. v5 adds a message that closes a channel; with v4 input has no end.
 */
export const channelProtocols = ['v5.channel.k8s.io', 'v4.channel.k8s.io'] as const

/** The channels. */
export const channels = {
  stdin: 0,
  stdout: 1,
  stderr: 2,
  status: 3,
  resize: 4,
  close: 255,
} as const

/** A message for a channel. */
export function frame(channel: number, payload: Buffer): Buffer {
  return Buffer.concat([Buffer.of(channel), payload])
}

/** What the client sent; undefined for an empty message. */
export function parseFrame(message: Buffer): { channel: number; payload: Buffer } | undefined {
  const channel = message[0]
  return channel === undefined ? undefined : { channel, payload: message.subarray(1) }
}

/** A terminal's size as kubectl tells it: `{"Width":80,"Height":24}`; undefined when it is none. */
export function parseSize(payload: Buffer): TerminalSize | undefined {
  if (payload.length > 256) return undefined
  let value: unknown
  try {
    value = JSON.parse(payload.toString())
  } catch {
    return undefined
  }
  if (!isRecord(value)) return undefined
  const { Width: columns, Height: rows } = value
  return isExtent(columns) && isExtent(rows) ? { columns, rows } : undefined
}

const isExtent = (value: unknown): value is number =>
  typeof value === 'number' && Number.isInteger(value) && value > 0 && value <= 65_535

/** How a command ended, as kubectl reads it. */
export function exitStatus(exitCode: number): object {
  const common = { kind: 'Status', apiVersion: 'v1', metadata: {} }
  if (exitCode === 0) return { ...common, status: 'Success' }
  return {
    ...common,
    status: 'Failure',
    reason: 'NonZeroExitCode',
    message: `command terminated with non-zero exit code ${exitCode}`,
    details: { causes: [{ reason: 'ExitCode', message: String(exitCode) }] },
  }
}

/** A status as the last message of a session. */
export function statusFrame(status: Status | object): Buffer {
  return frame(channels.status, Buffer.from(JSON.stringify(status)))
}
