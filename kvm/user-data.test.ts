import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { parse, stringify } from 'yaml'
import { seedFiles } from './user-data.ts'

const key = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 me@desk'
const content = { instanceId: 'i-1', hostName: 'web', sshKeys: [key] }

function userData(text: string | undefined, sshKeys: readonly string[] = [key]): string {
  return seedFiles({ ...content, sshKeys, userData: text })['user-data'] ?? ''
}

describe('the seed', () => {
  test('names the instance, the host and the keys', () => {
    expect(parse(seedFiles(content)['meta-data'] ?? '')).toEqual({
      'instance-id': 'i-1',
      'local-hostname': 'web',
      'public-keys': [key],
    })
  })

  test('without user data holds the keys alone', () => {
    expect(userData(undefined)).toBe(`#cloud-config\nssh_authorized_keys:\n  - ${key}\n`)
    expect(userData(' \n', [])).toBe('#cloud-config\n{}\n')
  })

  test('adds its keys after those of the user, each once, and keeps the rest as written', () => {
    const text = `#cloud-config
# comment
write_files:
  - path: /x
    permissions: 0644 # not 644
    content: |
      a

      b
ssh_authorized_keys:
  - ssh-rsa B
  - ${key}
enabled: yes
`
    const other = 'from="10.0.0.0/8",no-pty ssh-ed25519 AAAA: # b'
    const merged = userData(text, [key, other])
    expect(merged).toContain('permissions: 0644 # not 644')
    expect(merged).toContain('enabled: yes\n')
    expect(parse(merged)).toEqual({
      ...parse(text),
      ssh_authorized_keys: ['ssh-rsa B', key, other],
    })
  })

  test('hands on what is no cloud-config as it is', () => {
    for (const text of [
      '#!/bin/sh\necho hi\n',
      'Content-Type: multipart/mixed; boundary="x"\n\n',
    ]) {
      expect(userData(text)).toBe(text)
    }
    expect(userData('#cloud-config\nmode: 0644\n', [])).toBe('#cloud-config\nmode: 0644\n')
  })

  test('refuses what cloud-init would pass over in silence', () => {
    expect(() => userData('packages: [a]')).toThrow("none of cloud-init's formats")
    expect(() => userData('#cloud-config\na: [')).toThrow('can not be used')
    expect(() => userData('#cloud-config\na: [', [])).toThrow('can not be used')
    expect(() => userData('#cloud-config\n- a\n')).toThrow('must be a mapping')
    expect(() => userData('#cloud-config\nssh_authorized_keys: x\n')).toThrow('must be a list')
  })

  test('changes nothing but the keys of any cloud-config', () => {
    const words = fc.string({ unit: 'grapheme-ascii' })
    const values = fc.oneof(words, fc.integer(), fc.boolean(), fc.constant(null), fc.array(words))
    const names = fc.stringMatching(/^[a-z_]{1,8}$/)
    fc.assert(
      fc.property(fc.dictionary(names, values), object => {
        const text = `#cloud-config\n${stringify(object)}`
        expect(parse(userData(text))).toEqual({ ...object, ssh_authorized_keys: [key] })
      }),
    )
  })
})
