import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { createServer } from 'node:net'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { createSeededRandom } from '../base/random.ts'
import { choosePorts, isPortFree, type PortProbe, type WantedPort } from './ports.ts'

const range = { address: '127.0.0.1', first: 20_000, last: 20_009 }
const holder = 'the virtual machine default/other'

function components(isFree: PortProbe = async () => true, seed = 1) {
  return { random: createSeededRandom(seed), isFree }
}

const wanted = (port: Partial<WantedPort>): WantedPort => ({
  protocol: 'TCP',
  guestPort: 22,
  ...port,
})

describe('host ports', () => {
  test('are each their own, free, and in the range', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.uniqueArray(fc.integer({ min: 20_000, max: 20_009 }), { maxLength: 5 }),
        fc.uniqueArray(fc.integer({ min: 20_000, max: 20_009 }), { maxLength: 2 }),
        fc.integer({ min: 0, max: 3 }),
        fc.nat(),
        async (given, busy, count, seed) => {
          const held = given.map(hostPort => ({ protocol: 'TCP' as const, hostPort, holder }))
          const isFree: PortProbe = async (_, port) => !busy.includes(port)
          const ports = Array.from({ length: count }, () => wanted({}))
          const chosen = await choosePorts(ports, held, range, components(isFree, seed))
          const numbers = chosen.map(port => port.hostPort)
          expect(new Set(numbers).size).toBe(count)
          for (const port of numbers) {
            expect(port).toBeGreaterThanOrEqual(range.first)
            expect(port).toBeLessThanOrEqual(range.last)
            expect([...given, ...busy]).not.toContain(port)
          }
        },
      ),
    )
  })

  test('stay what they were while they are free', async () => {
    const port = wanted({ lastHostPort: 20_007 })
    const again = await choosePorts([port], [], range, components())
    expect(again).toEqual([
      { protocol: 'TCP', guestPort: 22, hostPort: 20_007, hostAddress: '127.0.0.1' },
    ])
    const busy: PortProbe = async (_, number) => number !== 20_007
    const moved = await choosePorts([port], [], range, components(busy))
    expect(moved[0]?.hostPort).not.toBe(20_007)
  })

  test('that a user names are kept, and no other port gets in their way', async () => {
    const ports = [wanted({ lastHostPort: 20_003 }), wanted({ guestPort: 80, hostPort: 20_003 })]
    const chosen = await choosePorts(ports, [], range, components())
    expect(chosen.map(port => port.guestPort)).toEqual([22, 80])
    expect(chosen[1]?.hostPort).toBe(20_003)
    expect(chosen[0]?.hostPort).not.toBe(20_003)
  })

  test('that are taken are refused with the name of who has them', async () => {
    const port = wanted({ hostPort: 8080 })
    const held = [{ protocol: 'TCP' as const, hostPort: 8080, holder }]
    await expect(choosePorts([port], held, range, components())).rejects.toThrow(
      'port 8080/TCP of 127.0.0.1 is taken by the virtual machine default/other',
    )
    const busy: PortProbe = async () => false
    await expect(choosePorts([port], [], range, components(busy))).rejects.toThrow(
      'taken by a program on this host',
    )
    await expect(choosePorts([port, port], [], range, components())).rejects.toThrow(
      'another port of the same virtual machine',
    )
    const udp = wanted({ hostPort: 8080, protocol: 'UDP' })
    expect(await choosePorts([udp], held, range, components())).toHaveLength(1)
  })

  test('run out with a clear error', async () => {
    const none = choosePorts(
      [wanted({})],
      [],
      range,
      components(async () => false),
    )
    await expect(none).rejects.toThrow('no port of 127.0.0.1 from 20000 to 20009 is free')
  })

  test('are probed by binding', async () => {
    const server = createServer().listen(0, '127.0.0.1')
    const socket = createSocket('udp4').bind(0, '127.0.0.1')
    try {
      await Promise.all([once(server, 'listening'), once(socket, 'listening')])
      const address = server.address()
      const tcpPort = typeof address === 'object' && address ? address.port : 0
      expect(await isPortFree('127.0.0.1', tcpPort, 'TCP')).toBe(false)
      expect(await isPortFree('127.0.0.1', socket.address().port, 'UDP')).toBe(false)
      expect(await isPortFree('127.0.0.1', 0, 'TCP')).toBe(true)
      expect(await isPortFree('127.0.0.1', 0, 'UDP')).toBe(true)
    } finally {
      server.close()
      socket.close()
    }
  })
})
