import type { PeerServer } from '../../images/peers/peer-server.ts'
import type { Rot } from '../../images/peers/served-images.ts'
import type { PeerDescription } from '../../images/sources/source.ts'
import type { TransferTls } from '../../images/transfer/transfers.ts'

/** How this host and the others of its fleet give each other parts of images. */
export interface PeerTransfers {
  server: Pick<PeerServer, 'setImage' | 'addStored' | 'removeImage'>
  /** Where another host serves; undefined for this one, and for who is no member. */
  peer(name: string): PeerDescription | undefined
  tls(): TransferTls | undefined
  /** Calls back with each renewed certificate. @returns to be called to end it */
  onTls(listener: (tls: TransferTls) => void): () => void
  /** Calls back when something of an image here is rotten. @returns to be called to end it */
  onRot(listener: (rot: Rot) => void): () => void
}
