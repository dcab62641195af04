import { Readable } from 'node:stream'
import { failure } from '../../base/errors.ts'
import type { FleetOperations, FleetStatus } from '../../interface/api/fleet-operations.ts'

/** A fleet of one host that does what it is told in memory, for tests of API and command line. */
export function createTestFleet(given: Partial<FleetOperations> = {}): FleetOperations {
  const status: FleetStatus = {
    mode: 'single',
    host: 'mac-1',
    version: '0.0.0',
    members: [],
    store: { kind: 'level', isAvailable: true },
    warnings: [],
  }
  const tokens = new Map<string, { id: string; expiresAt: string; usesLeft: number }>()
  const only = (name: string) => {
    if (!status.members.some(member => member.name === name)) {
      throw failure('notFound', { resource: 'hosts', name })
    }
  }
  return {
    status: async () => structuredClone(status),
    async init() {
      status.mode = 'fleet'
      status.fleetId = 'f1'
      status.leader = 'mac-1'
      const member = { name: 'mac-1', state: 'Approved', address: '10.0.0.1' } as const
      status.members.push({ ...member, version: '0.0.0', isAlive: true, voter: 'leader' })
      status.transition = { kind: 'init', state: 'done', message: 'done' }
    },
    async join(token) {
      const state = token === 'good' ? 'done' : 'failed'
      status.transition = { kind: 'join', state, message: 'the token is of another fleet' }
    },
    async leave() {
      status.mode = 'single'
      status.members = []
    },
    async createToken({ uses = 1, rack }) {
      const id = `t${tokens.size + 1}`
      const createdAt = '2026-01-01T00:00:00Z'
      const token = { id, expiresAt: '2026-01-01T01:00:00Z', usesLeft: uses, createdAt }
      tokens.set(id, token)
      return { ...token, ...(rack !== undefined && { rack }), token: `mf1.${id}.secret` }
    },
    listTokens: async () =>
      [...tokens.values()].map(token => ({ ...token, createdAt: '2026-01-01T00:00:00Z' })),
    async revokeToken(id) {
      if (!tokens.delete(id)) throw failure('notFound', { resource: 'tokens', name: id })
    },
    approveHost: async name => only(name),
    removeHost: async name => only(name),
    forgetHost: async name => only(name),
    rotateAuthorities: async () => {},
    backup: async passphrase => Readable.from([`sealed with ${passphrase.length}`]),
    async restore(sealed, passphrase) {
      let text = ''
      for await (const chunk of sealed) text += String(chunk)
      const state = text === `sealed with ${passphrase.length}` ? 'done' : 'failed'
      status.transition = { kind: 'restore', state, message: 'the passphrase is wrong' }
    },
    explain: async machine => ({
      best: 'mac-1',
      queued: 0,
      reasons: [],
      hosts: [
        {
          host: 'mac-1',
          objections: [],
          score: 1,
          parts: { room: 1, image: 0, spread: 0, taints: 0 },
        },
        { host: 'mac-2', objections: [`wants ${machine.spec.cpu} cores, 0 are free`] },
      ],
    }),
    ...given,
  }
}
