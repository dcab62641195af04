import { type Document, isMap, isSeq, parseDocument, stringify } from 'yaml'
import { failure } from '../base/errors.ts'

/** What a guest is told about itself. */
export interface SeedContent {
  /** A new one makes cloud-init run its once-per-instance steps again. */
  instanceId: string
  hostName: string
  /** Public keys that may log in, one OpenSSH line each. */
  sshKeys: readonly string[]
  /** The user's own text, in any of cloud-init's formats. */
  userData?: string | undefined
  /** cloud-init's network configuration, as the user wrote it; DHCP without it. */
  networkConfig?: string | undefined
}

/**
 * The formats of user data that cloud-init knows by their first characters
 * (cloud-init.readthedocs.io, "User data formats"). Only the first is read and added to; the others
 * are handed on as they are.
 */
const opaqueFormats = [
  '#!',
  '#include',
  '#cloud-boothook',
  '#cloud-config-archive',
  '#cloud-config-jsonp',
  '#part-handler',
  '## template: jinja',
  'Content-Type: multipart/',
  'MIME-Version:',
]

/** Every scalar stays the text that it is: with types, `mode: 0644` would come out as 644. */
const asWritten = { schema: 'failsafe' } as const

/**
 * The files of a NoCloud disk, by name. The keys stand in meta-data (`public-keys`), where
 * cloud-init finds them whatever the user data is, a script or MIME parts too. In a cloud-config
 * they are added to `ssh_authorized_keys` as well, for the small readers of guests without
 * cloud-init. The host name is `local-hostname`, which a cloud-config of the user's overrides.
 * @throws seedInvalid
 */
export function seedFiles(content: SeedContent): Record<string, string> {
  const metaData = {
    'instance-id': content.instanceId,
    'local-hostname': content.hostName,
    ...(content.sshKeys.length > 0 ? { 'public-keys': content.sshKeys } : {}),
  }
  return {
    'meta-data': stringify(metaData, { lineWidth: 0 }),
    'user-data': withKeys(content.userData ?? '', content.sshKeys),
    ...(content.networkConfig ? { 'network-config': content.networkConfig } : {}),
  }
}

function withKeys(userData: string, keys: readonly string[]): string {
  if (userData.trim() === '') return cloudConfig(parseDocument('', asWritten), keys)
  const firstLine = userData.split('\n', 1)[0]?.trimEnd() ?? ''
  if (opaqueFormats.some(start => firstLine.startsWith(start))) return userData
  if (firstLine !== '#cloud-config') {
    const detail = `its first line is none of cloud-init's formats (#cloud-config, #!, MIME, ...)`
    throw failure('seedInvalid', { detail })
  }
  const document = parseDocument(userData, asWritten)
  const problem = document.errors[0]
  if (problem) throw failure('seedInvalid', { detail: problem.message }, { cause: problem })
  if (keys.length === 0) return userData
  return cloudConfig(document, keys)
}

/** Adds the keys, and leaves everything else of the user's document as it was. */
function cloudConfig(document: Document, keys: readonly string[]): string {
  if (document.contents === null) document.contents = document.createNode({})
  if (!isMap(document.contents)) {
    throw failure('seedInvalid', { detail: 'a cloud-config must be a mapping' })
  }
  const name = 'ssh_authorized_keys'
  const present = document.get(name)
  if (present === undefined || present === null) {
    if (keys.length > 0) document.set(name, document.createNode([...keys]))
  } else if (isSeq(present)) {
    const known = new Set(present.items.map(String))
    for (const key of keys) if (!known.has(key)) present.add(document.createNode(key))
  } else {
    throw failure('seedInvalid', { detail: `${name} must be a list` })
  }
  const text = document.toString({ lineWidth: 0 })
  return text.startsWith('#cloud-config\n') ? text : `#cloud-config\n${text}`
}
