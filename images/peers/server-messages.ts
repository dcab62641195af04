import type { Limits } from '../../base/limits.ts'
import type { TransferTls } from '../transfer/transfers.ts'
import type { Rot, ServedImage } from './served-images.ts'

/** How the server is started; plain data. */
export interface PeerServerInit {
  /** An IP address of this host, and a port; 0 for a free one. */
  address: string
  port: number
  tls: TransferTls
  /** Bytes a second: to all hosts together, and to each; undefined: as many as there are. */
  bytesPerSecond?: number
  bytesPerSecondPerHost?: number
  limits: Limits
}

/** What the thread is told. */
export type ToServer =
  | { type: 'tls'; tls: TransferTls }
  | { type: 'image'; image: ServedImage }
  | { type: 'stored'; image: string; layer: number; chunks: number[] }
  | { type: 'remove'; id: number; image: string }
  | { type: 'membersChanged' }
  /** Whose a certificate is, as it was asked; undefined: nobody's who is a member. */
  | { type: 'member'; id: number; name: string | undefined }
  | { type: 'close' }

/** What the thread says. */
export type FromServer =
  | { type: 'listening'; port: number }
  | { type: 'failed'; code: string; message: string }
  | { type: 'member'; id: number; certificate: Uint8Array }
  | { type: 'removed'; id: number }
  | { type: 'rot'; rot: Rot }
  | { type: 'log'; fields: object; message: string }
  | { type: 'closed' }
