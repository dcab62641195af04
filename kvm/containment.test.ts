import { describe, expect, test } from 'vitest'
import { containedCommand, missingContainment } from './containment.ts'
import { allocateUser, defaultUserRange } from './guest-user.ts'

const all = { root: true, systemd: false, firewall: true }
const init = {
  command: '/usr/bin/qemu-system-x86_64',
  args: ['-S'],
  user: { userId: 210_000, groupId: 210_000 },
  kvmGroupId: undefined,
  unit: 'macfleet-guest-1',
}
const text = (...from: Parameters<typeof containedCommand>) => {
  const { command, args } = containedCommand(...from)
  return [command, ...args].join(' ')
}

describe('the contained command', () => {
  test('of root gives the guest a user of its own and nothing else', () => {
    expect(text(init, all)).toBe(
      'nice -n 39 choom -n 500 -- prlimit --core=0 ' +
        'setpriv --pdeathsig KILL --no-new-privs --inh-caps=-all --reuid=210000 --regid=210000 ' +
        '--clear-groups --ambient-caps=-all --bounding-set=-all -- /usr/bin/qemu-system-x86_64 -S',
    )
  })

  test('has the group of /dev/kvm when it is executed by KVM', () => {
    expect(text({ ...init, kvmGroupId: 105 }, all)).toContain(' --groups=105 ')
  })

  test('is put into a scope of its own where there is systemd', () => {
    expect(text(init, { ...all, systemd: true })).toMatch(
      /^systemd-run --scope .* --unit=macfleet-guest-1\.scope -- nice -n 39 /,
    )
  })

  test('of another user keeps what needs no root, and what is missing is said', () => {
    const facts = { root: false, systemd: true, firewall: false }
    expect(text({ ...init, user: undefined }, facts)).toBe(
      'nice -n 39 choom -n 500 -- prlimit --core=0 setpriv --pdeathsig KILL --no-new-privs ' +
        '--inh-caps=-all -- /usr/bin/qemu-system-x86_64 -S',
    )
    expect(missingContainment(facts)).toHaveLength(2)
    expect(missingContainment(all)).toEqual([])
  })
})

describe('the users of guests', () => {
  test('are taken from the lowest free id on', () => {
    expect(allocateUser(defaultUserRange, [])).toEqual({ userId: 210_000, groupId: 210_000 })
    expect(allocateUser({ first: 5, last: 7 }, [5, 7]).userId).toBe(6)
  })

  test('run out with a clear error', () => {
    expect(() => allocateUser({ first: 5, last: 6 }, [5, 6])).toThrow('limit of 2 user ids')
  })
})
