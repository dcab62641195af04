import { expect, test } from 'vitest'
import { checkImageSource, type ImageSource } from './image-source.ts'

const hex = 'a'.repeat(64)

test.each<[ImageSource, RegExp]>([
  [{ url: 'https://user:secret@example.test/a.qcow2' }, /url holds credentials/],
  [{ url: 'https://token@example.test/a.qcow2' }, /url holds credentials/],
  [{ registry: 'user:secret@registry.example.test/a' }, /registry holds credentials/],
  [{ url: 'http://example.test/a.raw' }, /url plain http needs/],
  [{ url: 'https://' }, /url is no URL/],
  [{ url: 'https://example.test/a', registry: 'registry.example.test/a' }, /needs one of/],
  [{ registry: 'registry.example.test/a', digest: `sha256:${hex}` }, /digest is for a url/],
  [{ library: 'a', pullSecret: 'b' }, /pullSecret is for a registry/],
])('%j is refused', (source, why) => {
  const told = checkImageSource(source).map(({ field, message }) => `${field} ${message}`)
  expect(told.join()).toMatch(why)
  expect(told.join()).not.toContain('secret@')
})

test.each<ImageSource>([
  { url: 'https://example.test/a.qcow2?key=user@host' },
  { url: 'http://example.test/a.raw', digest: `sha256:${hex}` },
  { registry: `registry.example.test:5000/a@sha256:${hex}`, pullSecret: 'b' },
  { library: 'a:1' },
])('%j is taken', source => {
  expect(checkImageSource(source)).toEqual([])
})
