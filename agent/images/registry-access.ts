import { readFile } from 'node:fs/promises'
import { failure } from '../../base/errors.ts'
import { isErrno } from '../../base/files.ts'
import type { Objects } from '../../cluster/objects.ts'
import { credentialsFor } from '../../images/registry/docker-config.ts'
import type { RegistryAccess } from '../../images/sources/source.ts'
import { dockerConfig, secretKind } from '../../resources/secret.ts'
import type { Config, RegistrySettings } from '../config.ts'

/** Which registry, for whom. */
export interface AccessRequest {
  /** `registry.example.test:5000` */
  host: string
  namespace: string
  /** A Secret of the namespace; the host's own file without it. */
  secret?: string | undefined
}

/** What finding the way to a registry needs. */
export interface AccessComponents {
  config: Pick<Config, 'registries' | 'registryCredentialsFile'>
  objects: Objects
}

/**
 * How a registry is reached, with its credentials.
 * @throws notFound for the Secret, registryCredentialsInvalid, fileUnreadable
 */
export async function registryAccess(
  request: AccessRequest,
  { config, objects }: AccessComponents,
): Promise<RegistryAccess> {
  const { host } = request
  const isNamed = Object.hasOwn(config.registries, host)
  const settings = (isNamed && config.registries[host]) || {}
  const { mirrors, plainHttp } = settings
  const text = await credentialsText(request, config.registryCredentialsFile, objects)
  const credentials = text === undefined ? undefined : credentialsFor(host, text)
  const authorities = await authoritiesOf(settings)
  return {
    host,
    ...(mirrors && { mirrors }),
    ...(plainHttp && { plainHttp }),
    ...(authorities !== undefined && { authorities }),
    ...(credentials && { credentials }),
    // Else an image could have us ask services of this host that are nobody else's.
    ...(!isNamed && { outwardOnly: true }),
  }
}

/** Certificates that the operator trusts for a server, PEM. @throws fileUnreadable */
export async function authoritiesOf({
  authoritiesFile,
}: RegistrySettings): Promise<string | undefined> {
  return authoritiesFile === undefined ? undefined : await readText(authoritiesFile)
}

async function credentialsText(
  { host, namespace, secret }: AccessRequest,
  file: string,
  objects: Objects,
): Promise<string | undefined> {
  if (secret === undefined) return await readText(file, true)
  const { type, data = {} } = await objects.get(secretKind, { namespace, name: secret })
  const value = data[dockerConfig.key]
  if (type === dockerConfig.type && value !== undefined) {
    return Buffer.from(value, 'base64').toString('utf8')
  }
  const { type: wanted, key } = dockerConfig
  const detail = `Secret ${secret} is not of type ${wanted}, or lacks ${key}`
  throw failure('registryCredentialsInvalid', { registry: host, detail })
}

async function readText(path: string): Promise<string>
async function readText(path: string, mayBeMissing: true): Promise<string | undefined>
async function readText(path: string, mayBeMissing = false): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    if (mayBeMissing && isErrno(error, 'ENOENT')) return undefined
    const detail = error instanceof Error ? error.message : String(error)
    throw failure('fileUnreadable', { path, detail }, { cause: error })
  }
}
