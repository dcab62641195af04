import { expect, test } from 'vitest'
import { describeObject } from './description.ts'

test('an image says how far it is on each host, and where it comes from', async () => {
  const filling = [
    { host: 'mac-1', doneBytes: 3 * 2 ** 30, totalBytes: 8 * 2 ** 30 },
    { host: 'mac-2', doneBytes: 0, totalBytes: 0, stalled: 'nobody has the rest' },
  ]
  const resolved = 'registry.example.test/a@sha256:1'
  const lines = await describeObject({
    object: {
      ...{ apiVersion: 'macfleet.dev/v1', kind: 'Image', metadata: { name: 'a' } },
      spec: { source: { registry: 'registry.example.test/a:1' }, copies: { count: 2 } },
      status: { filling, copyHosts: ['mac-1', 'mac-2'], resolved },
    },
    ...{ events: [], nowMs: 0, paint: (_, text) => text },
  })
  const text = lines.join('\n').replace(/ +/g, ' ')
  expect(text).toContain('Filling: mac-1 37% (3Gi of 8Gi)\n mac-2 0% (0 of 0) nobody has the rest')
  expect(text).toContain('Copy Hosts: mac-1\n mac-2')
  expect(text).toContain(`Resolved: ${resolved}`)
  expect(text).toContain('Registry: registry.example.test/a:1')
})
