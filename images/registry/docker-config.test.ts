import { describe, expect, test } from 'vitest'
import { credentialsFor } from './docker-config.ts'

const host = 'registry.example.test:5000'
const auth = Buffer.from('robot:a:secret').toString('base64')
const wanted = { username: 'robot', password: 'a:secret' }
const write = (config: object): string => JSON.stringify(config)

describe('a docker configuration', () => {
  test.each([
    [{ auths: { [host]: { auth } } }],
    [{ auths: { [`https://${host}/v2/`]: { auth } } }],
    [{ auths: { [host.toUpperCase()]: { username: 'robot', password: 'a:secret' } } }],
    [{ auths: { 'other.example.test': {}, [host]: { auth } }, credsStore: 'x' }],
  ])('gives what it says of a registry %#', config => {
    expect(credentialsFor(host, write(config))).toEqual(wanted)
  })

  test.each([
    [{}],
    [{ auths: { 'registry.example.test': { auth } } }],
    [{ auths: {}, credsStore: 'desktop' }],
  ])('gives nothing for a registry that it does not name %#', config => {
    expect(credentialsFor(host, write(config))).toBeUndefined()
  })

  test.each([
    ['{', 'not a docker configuration'],
    ['[]', 'not a docker configuration'],
    [write({ auths: { [host]: {} }, credsStore: 'desktop' }), 'helper, which is not run'],
    [write({ credHelpers: { [host]: 'cloud' } }), 'helper, which is not run'],
    [write({ auths: { [host]: { auth, identitytoken: 'x' } } }), 'identity token'],
    [write({ auths: { [host]: { auth: 'bm9uZQ==' } } }), 'no user name and password'],
    [write({ auths: { [host]: { username: 'a\r\nb', password: 'secret' } } }), 'characters'],
  ])('is refused with the reason: %s', (config, why) => {
    let thrown: unknown
    try {
      credentialsFor(host, config)
    } catch (error) {
      thrown = error
    }
    expect(thrown).toMatchObject({ code: 'registryCredentialsInvalid' })
    expect(String(thrown)).toContain(why)
    expect(String(thrown)).not.toContain('secret')
  })
})
