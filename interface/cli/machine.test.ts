import { describe, expect, test } from 'vitest'
import type { VirtualMachine } from '../../resources/virtual-machine.ts'
import { bootPicture, timingsText } from './boot-timings.ts'
import { judgePhase, judgeReady, stateOf } from './machine.ts'
import { sshTarget } from './ssh-command.ts'

const condition = (status: 'True' | 'False', message = '') => ({
  type: 'Ready',
  status,
  reason: 'Why',
  message,
  lastTransitionTime: '2026-01-01T00:00:00Z',
})

function machine(
  status: Partial<NonNullable<VirtualMachine['status']>>,
  metadata: object = {},
  spec: object = {},
): VirtualMachine {
  return {
    apiVersion: 'macfleet.dev/v1',
    kind: 'VirtualMachine',
    metadata: { name: 'web', uid: 'u-1', ...metadata },
    spec: {
      image: 'debian',
      cpu: 1,
      memory: '1Gi',
      powerState: 'Running',
      restartPolicy: 'OnFailure',
      onHostLoss: 'Wait',
      machine: 'linux',
      priority: 0,
      terminationGracePeriodSeconds: 30,
      ...spec,
    },
    status: { phase: 'Running', ...status },
  }
}

describe('waiting for a machine', () => {
  test('ends when it is ready, and not before the status speaks of this spec', () => {
    const ready = { conditions: [condition('True')] }
    expect(judgeReady(machine(ready))).toEqual({ is: 'reached' })
    const behind = machine({ ...ready, observedGeneration: 1 }, { generation: 2 })
    expect(judgeReady(behind).is).toBe('waiting')
    const booting = machine({ conditions: [condition('False', 'It boots')] })
    expect(judgeReady(booting)).toEqual({ is: 'waiting', state: 'Running, It boots' })
  })

  test('gives up on what will not come', () => {
    expect(judgeReady(undefined).is).toBe('failed')
    expect(judgeReady(machine({}, { deletionTimestamp: 'now' })).is).toBe('failed')
    expect(judgeReady(machine({}, {}, { powerState: 'Stopped' })).is).toBe('failed')
    const lastExit = { reason: 'QemuDied' as const, message: 'no memory', time: '' }
    const failed = judgeReady(machine({ phase: 'Failed', lastExit }))
    expect(failed).toEqual({ is: 'failed', state: 'Failed; no memory' })
  })

  test('knows phases', () => {
    expect(judgePhase('Stopped')(machine({ phase: 'Stopped' })).is).toBe('reached')
    expect(judgePhase('Stopped')(machine({})).is).toBe('waiting')
    expect(stateOf(machine({}, { deletionTimestamp: 'now' }))).toBe('Deleting')
  })
})

describe('a boot', () => {
  test('is drawn to scale', () => {
    const timings = { spawnedMs: 50, firstConsoleByteMs: 500, sshMs: 1000 }
    const drawn = machine({ bootTimings: timings })
    expect(bootPicture(drawn, 20)).toEqual([
      'QEMU started        ━                     50 ms',
      'first console byte   ━━━━━━━━━            500 ms',
      'SSH                           ━━━━━━━━━━  1.00 s',
    ])
    expect(timingsText(drawn)).toBe('SSH after 1.00 s')
    expect(bootPicture(machine({}), 20)).toEqual([])
  })

  test('never leaves its picture', () => {
    const timings = { spawnedMs: 1000, firmwareMs: 1000, agentMs: 1000 }
    for (const line of bootPicture(machine({ bootTimings: timings }), 10)) {
      expect(line).toMatch(/^.{14}[ ━]{10} {2}1\.00 s$/)
    }
  })
})

describe('openssh', () => {
  const choices = { settingsFolder: '/s t', identity: undefined, sshOptions: [] }
  const ports = [
    { guestPort: 22, hostPort: 20_001, hostAddress: '0.0.0.0', protocol: 'TCP' as const },
  ]

  test('is sent to the forwarded port, and knows the host by its uid', () => {
    const target = sshTarget(machine({ ports }), choices)
    expect(target).toMatchObject({ host: '127.0.0.1', port: 20_001 })
    expect(target.options).toContain('HostKeyAlias=u-1')
    expect(target.options).toContain('UserKnownHostsFile="/s t/known_hosts"')
    expect(target.options).not.toContain('-i')
  })

  test('is given our key where the machine knows it, or the one that was named', () => {
    const identity = { path: '/k', publicKey: 'ssh-ed25519 AAAA macfleet' }
    const ours = machine({ ports }, {}, { sshKeys: ['ssh-ed25519 AAAA somebody'] })
    expect(sshTarget(ours, { ...choices, identity }).options.slice(0, 2)).toEqual(['-i', '/k'])
    const others = machine({ ports }, {}, { sshKeys: ['ssh-ed25519 BBBB'] })
    expect(sshTarget(others, { ...choices, identity }).options).not.toContain('-i')
    const named = sshTarget(others, { ...choices, identity, identityPath: '/mine' })
    expect(named.options.slice(0, 2)).toEqual(['-i', '/mine'])
  })

  test('is refused with what to do instead', () => {
    expect(() => sshTarget(machine({}), choices)).toThrow('its port 22 is not forwarded')
    const spec = { ports: [{ guestPort: 22, protocol: 'TCP' }] }
    const stopped = machine({ phase: 'Stopped' }, {}, spec)
    expect(() => sshTarget(stopped, choices)).toThrow('it is Stopped. `macfleet start web --wait`')
  })
})
