import { X509Certificate } from 'node:crypto'
import { chmodSync } from 'node:fs'
import { join } from 'node:path'
import { failure } from '../../base/errors.ts'
import { writeFileAtomic } from '../../base/files.ts'
import { createTurns } from '../../base/turns.ts'
import { type AuthoritiesRecord, bundleOf } from '../../cluster/membership/authorities.ts'
import type { AuthorityKind, AuthorityPair } from '../../cluster/membership/authority.ts'
import { type HostIdentity, isIssuedBy } from '../../cluster/membership/identity.ts'
import { type Identity, loadIdentity } from '../../cluster/peers/identity.ts'
import { type FleetFile, type Known, readAuthorityPairs, readFleetFile } from './fleet-file.ts'
import { type Folders, finishRename, foldersOf, readJson, readText } from './folder-files.ts'
import { readMachineId } from './machine-id.ts'

/** What TLS of one kind needs, PEM. */
export interface TlsMaterial {
  key: string
  /** The host's certificate, then that of the authority that signed it. */
  cert: string
  /** All authorities that are trusted. */
  ca: string
}

/** Files for programs that read them themselves (etcd). */
export interface FleetPaths {
  /** Key and certificates in one file, so that they change together. */
  etcd: string
  hosts: string
  etcdAuthorities: string
  hostsAuthorities: string
}

/** A certificate with its key, PEM. */
export interface KeyedCertificate {
  key: string
  /** The host's certificate alone. */
  certificate: string
}

/** This host's place in a fleet: `<dataDir>/fleet/`, readable by the daemon alone. */
export interface FleetFolder {
  readonly path: string
  readonly paths: FleetPaths
  readonly identity: HostIdentity
  /** The digest of the machine id of the machine that it lies on. */
  readonly machineId: string
  /** The key that is this host, for libp2p and for proofs. */
  readonly peer: Identity
  known(): Known
  tls(kind: AuthorityKind): TlsMaterial
  certificate(kind: AuthorityKind): X509Certificate
  /** The generation of the authorities that signed this host's certificates; 0 when none known. */
  generation(): number
  /** The authorities' keys that are here; none but on voters. */
  authorityPairs(): readonly AuthorityPair[]
  /** Writes down what is known newer; an era that is lower than the known one is refused. */
  remember(newer: Partial<Omit<Known, 'authorities'>>): Promise<void>
  saveCertificates(certificates: Record<AuthorityKind, KeyedCertificate>): Promise<void>
  saveAuthorities(record: AuthoritiesRecord): Promise<void>
  saveAuthorityPairs(pairs: readonly AuthorityPair[]): Promise<void>
}

/** Where the folder is and on which machine. */
export interface FleetFolderInit {
  dataDir: string
  /** Usually /etc/machine-id. */
  machineIdFile: string
}

/**
 * Opens this host's place in its fleet.
 * @returns undefined when it is in none
 * @throws fleetFolderDamaged naming the file; adoptNeeded on another machine than the one that it
 *   was made on; nothing is changed then
 */
export async function openFleetFolder(init: FleetFolderInit): Promise<FleetFolder | undefined> {
  const folders = foldersOf(init.dataDir)
  if (!(await finishRename(folders))) return undefined
  const path = folders.fleet
  const file = await readFleet(path)
  if (file.machineId !== (await readMachineId(init.machineIdFile))) {
    throw failure('adoptNeeded', { folder: init.dataDir })
  }
  chmodSync(path, 0o700)
  return openFolder(folders, file)
}

/** Binds the folder to the machine that it lies on now. @throws fleetFolderDamaged */
export async function adoptFleetFolder(init: FleetFolderInit): Promise<void> {
  const folders = foldersOf(init.dataDir)
  if (!(await finishRename(folders))) return
  const file = await readFleet(folders.fleet)
  const machineId = await readMachineId(init.machineIdFile)
  const adopted: FleetFile = { ...file, machineId, member: { ...file.member, machineId } }
  await writeFileAtomic(join(folders.fleet, 'fleet.json'), JSON.stringify(adopted))
}

/** @throws fleetFolderDamaged */
async function readFleet(path: string): Promise<FleetFile> {
  const file = join(path, 'fleet.json')
  const found = readFleetFile(await readJson(file))
  if (found === undefined) throw damaged(file, 'it is not what macfleet writes there')
  return found
}

function damaged(path: string, detail: string): Error {
  return failure('fleetFolderDamaged', { path, detail })
}

/** The parts of `hosts.pem` and `etcd.pem`. */
function splitPem(text: string): { key: string; certificate: string; chain: string } | undefined {
  const blocks = text.match(/-----BEGIN ([A-Z ]+)-----[^-]+-----END \1-----\n?/g) ?? []
  const key = blocks.find(block => block.includes('PRIVATE KEY'))
  const certificates = blocks.filter(block => block.includes('BEGIN CERTIFICATE'))
  const [certificate] = certificates
  if (key === undefined || certificate === undefined) return undefined
  return { key, certificate, chain: certificates.join('') }
}

interface Opened {
  peer: Identity
  etcd: Material
  hosts: Material
  pairs: readonly AuthorityPair[]
}

interface Material {
  key: string
  chain: string
  leaf: X509Certificate
}

function materialOf(file: string, text: string, peerId: string): Material {
  const parts = splitPem(text)
  if (parts === undefined) throw damaged(file, 'it holds no key with a certificate')
  let leaf: X509Certificate
  try {
    leaf = new X509Certificate(parts.certificate)
  } catch {
    throw damaged(file, 'its certificate can not be read')
  }
  if (!(leaf.subjectAltName ?? '').includes(peerId)) {
    throw damaged(file, 'its certificate is that of another host')
  }
  return { key: parts.key, chain: parts.chain, leaf }
}

async function readParts(path: string, file: FleetFile): Promise<Opened> {
  const keyFile = join(path, 'peer.key')
  const secret = Buffer.from((await readText(keyFile)).trim(), 'base64')
  if (secret.length !== 32) throw damaged(keyFile, 'it holds no key')
  const peer = loadIdentity(secret)
  const { peerId } = file.member
  if (peer.peerId !== peerId) throw damaged(keyFile, 'it is the key of another host')
  const read = async (name: string) =>
    materialOf(join(path, name), await readText(join(path, name)), peerId)
  const keysFile = join(path, 'authorities.json')
  const pairs = readAuthorityPairs((await readJson(keysFile, 'optional')) ?? [])
  if (pairs === undefined) throw damaged(keysFile, 'it is not what macfleet writes there')
  return { peer, etcd: await read('etcd.pem'), hosts: await read('hosts.pem'), pairs }
}

async function openFolder({ fleet: path }: Folders, opened: FleetFile): Promise<FleetFolder> {
  let file = opened
  const parts = await readParts(path, opened)
  const turns = createTurns()
  const paths = pathsIn(path)
  const save = (next: FleetFile) =>
    turns.take(async () => {
      await writeFileAtomic(join(path, 'fleet.json'), JSON.stringify(next))
    })
  const saveBundles = async (record: AuthoritiesRecord): Promise<void> => {
    await writeFileAtomic(paths.etcdAuthorities, bundleOf(record, 'etcd'))
    await writeFileAtomic(paths.hostsAuthorities, bundleOf(record, 'hosts'))
  }
  // A crash may have come between the record and these.
  await saveBundles(file.authorities)
  const { fleet, member } = file
  return {
    path,
    paths,
    identity: {
      fleetId: fleet.fleetId,
      name: member.name,
      peerId: member.peerId,
      hostId: member.hostId,
    },
    machineId: file.machineId,
    peer: parts.peer,
    known: () => file,
    tls: kind => ({
      key: parts[kind].key,
      cert: parts[kind].chain,
      ca: bundleOf(file.authorities, kind),
    }),
    certificate: kind => parts[kind].leaf,
    generation: () => generationOf(parts, file.authorities),
    authorityPairs: () => parts.pairs,
    async remember(newer) {
      const era = newer.fleet?.era ?? file.fleet.era
      const next = { ...file, ...newer }
      if (era < file.fleet.era) next.fleet = file.fleet
      file = next
      await save(file)
    },
    async saveCertificates(certificates) {
      for (const kind of ['etcd', 'hosts'] as const) {
        const text = pemFileOf(certificates[kind], kind, file.authorities)
        await turns.take(() => writeFileAtomic(paths[kind], text))
        parts[kind] = materialOf(paths[kind], text, member.peerId)
      }
    },
    async saveAuthorities(authorities) {
      file = { ...file, authorities }
      await save(file)
      await turns.take(() => saveBundles(authorities))
    },
    async saveAuthorityPairs(pairs) {
      await turns.take(() => writeFileAtomic(join(path, 'authorities.json'), JSON.stringify(pairs)))
      parts.pairs = pairs
    },
  }
}

/** Key, certificate and the authority that signed it, in one file. */
export function pemFileOf(
  { key, certificate }: KeyedCertificate,
  kind: AuthorityKind,
  { trusted }: AuthoritiesRecord,
): string {
  const leaf = new X509Certificate(certificate)
  const signer = trusted.find(each => isIssuedBy(leaf, new X509Certificate(each[kind])))
  return `${key}${certificate}${signer?.[kind] ?? ''}`
}

function generationOf({ etcd, hosts }: Opened, { trusted }: AuthoritiesRecord): number {
  const signer = trusted.find(
    each =>
      isIssuedBy(etcd.leaf, new X509Certificate(each.etcd)) &&
      isIssuedBy(hosts.leaf, new X509Certificate(each.hosts)),
  )
  return signer?.generation ?? 0
}

function pathsIn(path: string): FleetPaths {
  return {
    etcd: join(path, 'etcd.pem'),
    hosts: join(path, 'hosts.pem'),
    etcdAuthorities: join(path, 'etcd-ca.pem'),
    hostsAuthorities: join(path, 'hosts-ca.pem'),
  }
}
