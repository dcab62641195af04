import { X509Certificate } from 'node:crypto'
import { backoffMs } from '../../base/backoff.ts'
import { type Clock, sleep } from '../../base/clock.ts'
import type { Limits } from '../../base/limits.ts'
import { type Log, messageOf } from '../../base/log.ts'
import type { MemberAddress } from '../../cluster/fleet/member.ts'
import { checkCertificate, identityUri } from '../../cluster/membership/identity.ts'
import type { MemberList } from '../../cluster/membership/members.ts'
import { type PeerServer, startPeerServer } from '../../images/peers/peer-server.ts'
import type { Rot, ServedImage } from '../../images/peers/served-images.ts'
import { putBit } from '../../images/transfer/bitmap.ts'
import type { TransferTls } from '../../images/transfer/transfers.ts'
import { type Quantity, quantityValue } from '../../resources/quantity.ts'
import type { Config } from '../config.ts'
import type { FleetFolder } from '../membership/fleet-folder.ts'
import type { PeerTransfers } from './peer-transfers.ts'

/** Which host gives parts of its images, and where. */
export interface PeerTransfersInit {
  config: Pick<Config, 'fleet'>
  fleet: FleetFolder
  address: MemberAddress
}

/** What it needs. */
export interface PeerTransfersComponents {
  clock: Clock
  log: Log
  limits: Limits
}

/** The transfers of a host that is in a fleet, before and while it is among the others. */
export interface OwnPeerTransfers extends PeerTransfers {
  /** This host is among the others: serves them until it is stopped, whatever comes between. */
  begin(members: MemberList): Promise<void>
  /** This host's certificate, or whom it trusts, is new. */
  tlsChanged(): void
  stop(): Promise<void>
}

const leastBytesPerSecond = 128 * 1024
const restart = { firstMs: 1_000, mostMs: 60_000 }

/** Nothing is served yet; images may be named already. */
export function createPeerTransfers(
  init: PeerTransfersInit,
  components: PeerTransfersComponents,
): OwnPeerTransfers {
  const { clock, log } = components
  const rotListeners = new Set<(rot: Rot) => void>()
  const tlsListeners = new Set<(tls: TransferTls) => void>()
  const images = new Map<string, ServedImage>()
  let tls = tlsOf(init.fleet)
  let server: PeerServer | undefined
  let members: MemberList | undefined
  let stopping = new AbortController()
  let running: Promise<void> = Promise.resolve()
  let stopListening = () => {}

  const onRot = (rot: Rot): void => {
    log.error({ ...rot }, 'something of an image is rotten, and is not given to other hosts')
    for (const listener of [...rotListeners]) listener(rot)
  }
  const open = async (list: MemberList): Promise<Error> => {
    const failed = Promise.withResolvers<Error>()
    const began = await startPeerServer(serverInit(init, tls, components), {
      log,
      onRot,
      onFailed: failed.resolve,
      findMember: async certificate => findMember(certificate, init.fleet, list, clock),
    })
    server = began
    for (const image of images.values()) began.setImage(image)
    // It may have been renewed while the thread started.
    began.setTls(tls)
    stopping.signal.addEventListener('abort', () => failed.resolve(new Error('stopped')))
    if (stopping.signal.aborted) failed.resolve(new Error('stopped'))
    const error = await failed.promise
    server = undefined
    await began.close()
    return error
  }
  const run = async (list: MemberList): Promise<void> => {
    const { signal } = stopping
    for (let failures = 1; !signal.aborted; failures++) {
      const error = await open(list).catch((thrown: unknown) => thrown)
      if (signal.aborted) return
      log.error({ error: messageOf(error) }, 'other hosts get no parts of images from here')
      await sleep(clock, backoffMs(restart, failures), signal).catch(() => {})
    }
  }
  return {
    server: {
      setImage(image) {
        images.set(image.digest, image)
        server?.setImage(image)
      },
      addStored(digest, layer, chunks) {
        const stored = images.get(digest)?.stored?.[layer]
        if (stored !== undefined) for (const chunk of chunks) putBit(stored, chunk, true)
        server?.addStored(digest, layer, chunks)
      },
      async removeImage(digest) {
        images.delete(digest)
        await server?.removeImage(digest)
      },
    },
    peer: name => describe(name, init.fleet, members),
    tls: () => tls,
    onTls(listener) {
      tlsListeners.add(listener)
      return () => tlsListeners.delete(listener)
    },
    onRot(listener) {
      rotListeners.add(listener)
      return () => rotListeners.delete(listener)
    },
    async begin(list) {
      stopping = new AbortController()
      members = list
      stopListening = list.onChange(() => server?.membersChanged())
      running = run(list)
    },
    tlsChanged() {
      tls = tlsOf(init.fleet)
      server?.setTls(tls)
      // An authority that is trusted no more ends what it let in.
      server?.membersChanged()
      for (const listener of [...tlsListeners]) listener(tls)
    },
    async stop() {
      stopListening()
      stopping.abort()
      members = undefined
      await running
    },
  }
}

function tlsOf(fleet: FleetFolder): TransferTls {
  const { key, cert, ca } = fleet.tls('hosts')
  return { certificate: cert, key, authorities: ca }
}

function serverInit(
  { config, address }: PeerTransfersInit,
  tls: TransferTls,
  { limits }: PeerTransfersComponents,
) {
  const { transferPort, transferRate, transferRatePerHost } = config.fleet
  // Slower than this nothing would come at all before the others give up.
  const rate = (text: Quantity | undefined) =>
    text === undefined ? undefined : Math.max(leastBytesPerSecond, quantityValue(text))
  const [bytesPerSecond, bytesPerSecondPerHost] = [rate(transferRate), rate(transferRatePerHost)]
  return {
    address: address.host,
    port: address.transferPort ?? transferPort,
    tls,
    limits,
    ...(bytesPerSecond === undefined ? {} : { bytesPerSecond }),
    ...(bytesPerSecondPerHost === undefined ? {} : { bytesPerSecondPerHost }),
  }
}

/** @throws certificateRefused, notMember */
function findMember(
  certificate: Uint8Array,
  fleet: FleetFolder,
  members: MemberList,
  clock: Clock,
): string {
  const identity = checkCertificate(new X509Certificate(certificate), {
    fleetId: fleet.identity.fleetId,
    authorities: fleet.known().authorities.trusted.map(each => each.hosts),
    nowMs: clock.wallMs(),
  })
  return members.check(identity).name
}

function describe(name: string, fleet: FleetFolder, members: MemberList | undefined) {
  const { fleetId, name: own } = fleet.identity
  const member = name === own ? undefined : members?.get(name)
  const port = member?.address.transferPort
  if (member?.state !== 'Approved' || port === undefined) return undefined
  const { peerId, hostId } = member
  const identity = identityUri({ fleetId, name, peerId, hostId })
  return { kind: 'peer' as const, name, identity, address: member.address.host, port }
}
