import { execFileSync } from 'node:child_process'
import { copyFileSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { sleep, systemClock } from '../../base/clock.ts'
import {
  bootSystemdMachine,
  type SystemdMachine,
  unpackSystemdTree,
} from '../support/systemd-machine.ts'

/**
 * The units on a Debian whose PID 1 is systemd. One machine, one guest, and the story of a host:
 * each test goes on where the last one ended.
 */
describe.skipIf(process.getuid?.() !== 0)('a host that systemd runs', () => {
  const checkout = join(import.meta.dirname, '../..')
  let machine: SystemdMachine
  const run = (script: string) => machine.run(script)
  const property = (unit: string, name: string) => run(`systemctl show ${unit} -P ${name}`)
  const pidOf = async (unit: string) => Number(await property(unit, 'MainPID'))
  const qemu = () => run('pidof qemu-system-x86_64 || true')
  const phase = async () => {
    const list = JSON.parse(await run('macfleet get vms -o json'))
    return list.items[0]?.status?.phase
  }
  const ready = () => run('macfleet get hosts >/dev/null 2>&1 && echo yes || true')

  async function until(what: string, isSo: () => Promise<boolean>, timeoutMs = 30_000) {
    const deadlineMs = systemClock.monotonicMs() + timeoutMs
    while (!(await isSo())) {
      if (systemClock.monotonicMs() > deadlineMs) {
        const journal = await run('journalctl --no-pager -n 60 -o cat')
        throw new Error(`not within ${timeoutMs} ms: ${what}\n${journal}`)
      }
      await sleep(systemClock, 50)
    }
  }

  function install(root: string, version?: string) {
    execFileSync(join(checkout, 'systemd/install'), { env: { ...process.env, DESTDIR: root } })
    if (version === undefined) return
    const file = join(root, 'usr/lib/macfleet/package.json')
    writeFileSync(file, JSON.stringify({ ...JSON.parse(readFileSync(file, 'utf8')), version }))
  }

  beforeAll(async () => {
    const root = unpackSystemdTree()
    install(root)
    copyFileSync(join(checkout, '.macfleet/guests/micro.raw'), join(root, 'root/micro.raw'))
    machine = await bootSystemdMachine(root)
    // A watchdog that bites soon; all else is as installed.
    await run(`systemd-sysusers && systemd-tmpfiles --create
      mkdir -p /etc/systemd/system/macfleetd.service.d
      printf '[Service]\\nWatchdogSec=6s\\n' >/etc/systemd/system/macfleetd.service.d/test.conf
      mkdir -p /etc/macfleet
      printf 'fleet: { address: 127.0.0.1 }\\n' >/etc/macfleet/macfleetd.yaml
      systemctl daemon-reload
      systemctl enable --quiet macfleet-guardian macfleetd`)
  }, 240_000)

  afterAll(() => machine?.remove())

  test('starts the guardian, then the daemon, which says when it is ready', async () => {
    await run('systemctl start macfleetd')
    expect(await run('systemctl is-active macfleetd macfleet-guardian')).toBe('active\nactive')
    expect(await ready()).toBe('yes')
    expect(await run('stat -c "%A %U %G" /run/macfleet/macfleet.sock')).toBe(
      'srw-rw---- root macfleet',
    )
    expect(await run('stat -c %A /run/macfleet/guardian.sock')).toBe('srw-------')
    // The daemon found systemd's guardian and made none of its own.
    expect(await run('pgrep -fc [a]gent/guardian/serve.ts')).toBe('1')
  })

  test('runs a guest in a scope of its own, with no standing of the guardian', async () => {
    await run(`macfleet image import /root/micro.raw --name micro
      macfleet run micro --name one --memory 256Mi --no-ssh --restart-policy Always`)
    await until('the guest runs', async () => (await phase()) === 'Running')
    const pid = await qemu()
    expect(await run(`cat /proc/${pid}/cgroup | tail -n 1`)).toMatch(
      /\/macfleet\.slice\/macfleet-guests\.slice\/macfleet-[^/]+\.scope$/,
    )
    expect(Number(await run(`ps -o ppid= ${pid}`))).toBe(await pidOf('macfleet-guardian'))
    expect(await run(`cat /proc/${pid}/oom_score_adj; ps -o nice= ${pid}`)).toMatch(/^500\s+19$/)
    expect(Number(await run(`ps -o nice= ${await pidOf('macfleet-guardian')}`))).toBe(-10)
    expect(await run(`grep CapEff /proc/${pid}/status`)).toMatch(/\s0+$/)
  })

  const survivors = async () => [await qemu(), await pidOf('macfleet-guardian')]

  test.each([
    ['restarted', 'systemctl restart macfleetd'],
    ['stopped and started', 'systemctl stop macfleetd; systemctl start macfleetd'],
    ['killed', 'systemctl kill --signal=KILL --kill-whom=all macfleetd'],
  ])('when the daemon is %s, guests run on', async (_, script) => {
    const [before, daemon] = [await survivors(), await pidOf('macfleetd')]
    await run(script)
    await until('another daemon is ready', async () => {
      const now = await pidOf('macfleetd')
      return now !== 0 && now !== daemon && (await ready()) === 'yes'
    })
    await until('it knows the guest', async () => (await phase()) === 'Running')
    expect(await survivors()).toEqual(before)
  })

  test('a daemon that hangs is restarted by the watchdog, and guests run on', async () => {
    const [before, daemon] = [await survivors(), await pidOf('macfleetd')]
    await run(`kill -STOP ${daemon}`)
    await until('another daemon is ready', async () => {
      const now = await pidOf('macfleetd')
      return now !== 0 && now !== daemon && (await ready()) === 'yes'
    })
    expect(await run('journalctl -u macfleetd -o cat --no-pager')).toContain('Watchdog timeout')
    await until('it knows the guest', async () => (await phase()) === 'Running')
    expect(await survivors()).toEqual(before)
  })

  test('an upgrade replaces the daemon and neither guests nor guardian', async () => {
    const before = await survivors()
    install(machine.root, '99.0.0')
    expect(await phase()).toBe('Running')
    await run('systemctl restart macfleetd')
    expect(await run('macfleet version')).toMatch(/server\s+99\.0\.0/)
    expect(await phase()).toBe('Running')
    expect(await survivors()).toEqual(before)
  })

  test('becomes a fleet with etcd under the guardian, and its guest does not notice', async () => {
    const [before, daemon] = [await survivors(), await pidOf('macfleetd')]
    await run('macfleet cluster init')
    expect(await run('macfleet cluster status')).toContain('led by')
    expect(await survivors()).toEqual(before)
    expect(await pidOf('macfleetd')).toBe(daemon)
    const etcd = await run('pgrep -x etcd')
    expect(Number(await run(`ps -o ppid= ${etcd}`))).toBe(await pidOf('macfleet-guardian'))
    expect(await run(`grep -E 'CapEff|NoNewPrivs' /proc/${etcd}/status`)).toMatch(
      /NoNewPrivs:\s+1\nCapEff:\s+0+$|CapEff:\s+0+\nNoNewPrivs:\s+1$/,
    )
    await run('systemctl restart macfleetd')
    await until('the leader leads again', async () =>
      (await run('macfleet cluster status')).includes('led by'),
    )
    expect(await run('pgrep -x etcd')).toBe(etcd)
    expect(await survivors()).toEqual(before)
  })

  test.each([
    ['restarted', 'systemctl restart macfleet-guardian'],
    ['killed', 'systemctl kill --signal=KILL --kill-whom=main macfleet-guardian'],
  ])(
    'when the guardian is %s, its guests end and the daemon starts them anew',
    async (_, script) => {
      const [[guest, guardian], daemon] = [await survivors(), await pidOf('macfleetd')]
      await run(script)
      await until('another guest runs', async () => {
        const [nextGuest, nextGuardian] = await survivors()
        const changed = nextGuest !== guest && nextGuest !== '' && nextGuardian !== guardian
        return changed && (await phase()) === 'Running'
      })
      expect((await qemu()).split(' ')).toHaveLength(1)
      expect(await pidOf('macfleetd')).toBe(daemon)
    },
  )

  test('stopping both leaves no process', async () => {
    await run('systemctl stop macfleetd macfleet-guardian')
    expect(await qemu()).toBe('')
    expect(await run('systemctl is-failed macfleetd macfleet-guardian || true')).toBe(
      'inactive\ninactive',
    )
    await until('the scopes are gone', async () => {
      return (await run('systemctl list-units --plain --no-legend "macfleet-*.scope"')) === ''
    })
    expect(await run('ps -eo args= | grep "/usr/lib/[m]acfleet" || true')).toBe('')
  })
})
