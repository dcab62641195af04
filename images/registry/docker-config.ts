import Type from 'typebox'
import { Value } from 'typebox/value'
import { failure, type MacfleetError } from '../../base/errors.ts'
import type { RegistryAccess } from '../sources/source.ts'

const text = Type.Optional(Type.String())
const configSchema = Type.Object({
  auths: Type.Optional(
    Type.Record(
      Type.String(),
      Type.Object({ auth: text, username: text, password: text, identitytoken: text }),
    ),
  ),
  credsStore: text,
  credHelpers: Type.Optional(Type.Record(Type.String(), Type.String())),
})
const configCharacters = 1024 * 1024

/**
 * The credentials for a registry in a docker configuration (`~/.docker/config.json`, or the value
 * of a Secret of type kubernetes.io/dockerconfigjson); undefined when it says nothing of that
 * registry. Credential helpers are programs, which we don't run, and identity tokens are not taken.
 * @param host `registry.example.test:5000`
 * @throws registryCredentialsInvalid; nothing of the configuration is in it
 */
export function credentialsFor(host: string, configuration: string): RegistryAccess['credentials'] {
  const invalid = (detail: string): MacfleetError =>
    failure('registryCredentialsInvalid', { registry: host, detail })
  const config = parse(configuration)
  if (!Value.Check(configSchema, config)) throw invalid('it is not a docker configuration')
  const named = Object.entries(config.auths ?? {}).find(([key]) => hostOf(key) === host)?.[1]
  const { auth = '', username = '', password = '', identitytoken } = named ?? {}
  const [user, secret] = auth === '' ? [username, password] : splitBasic(auth)
  if (user !== '' && secret !== '' && !identitytoken) {
    if (/[\0\r\n]/.test(user + secret) || user.includes(':')) {
      throw invalid('they hold characters that can not be sent')
    }
    return { username: user, password: secret }
  }
  if (identitytoken) throw invalid('they are an identity token, which is not taken')
  const helped = Object.keys(config.credHelpers ?? {}).some(key => hostOf(key) === host)
  if (helped || (config.credsStore && named !== undefined)) {
    throw invalid('they are kept by a credential helper, which is not run')
  }
  if (named !== undefined) throw invalid('there is no user name and password')
  return undefined
}

function parse(configuration: string): unknown {
  if (configuration.length > configCharacters) return undefined
  try {
    return JSON.parse(configuration)
  } catch {
    return undefined
  }
}

/** Keys are hosts, and URLs in older files: `https://registry.example.test/v1/`. */
function hostOf(key: string): string {
  return key
    .replace(/^https?:\/\//, '')
    .replace(/\/.*$/s, '')
    .toLowerCase()
}

function splitBasic(auth: string): [string, string] {
  const plain = Buffer.from(auth, 'base64').toString('utf8')
  const colon = plain.indexOf(':')
  return colon < 0 ? ['', ''] : [plain.slice(0, colon), plain.slice(colon + 1)]
}
