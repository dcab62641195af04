import type { Clock } from '../../base/clock.ts'
import { isFailure, messageOf } from '../../base/errors.ts'
import type { Log } from '../../base/log.ts'
import { forgetHost } from '../../cluster/leader/forget.ts'
import { createObjects, type Objects } from '../../cluster/objects.ts'
import type { Store } from '../../cluster/store/store.ts'
import { hostKind } from '../../resources/host.ts'
import { type VirtualMachine, virtualMachineKind } from '../../resources/virtual-machine.ts'
import { Actor, MachineClocks } from './actor.ts'
import type { Books } from './books.ts'
import type { Etcd } from './etcd.ts'
import { Link } from './link.ts'
import { createStoreClient } from './store-client.ts'
import type { Chance, World } from './world.ts'

/** How much is asked for. */
export interface LoadInit {
  hosts: readonly string[]
  zones: readonly string[]
  /** Machines that are there at once. */
  machinesMost: number
}

/** What the load needs. */
export interface LoadComponents {
  world: World
  etcd: Etcd
  books: Books
}

/**
 * Users and operators: they create, delete, stop, start and change machines, and cordon and drain
 * hosts, through a network of their own that loses answers.
 */
export class Load {
  readonly #init: LoadInit
  readonly #world: World
  readonly #books: Books
  readonly #chance: Chance
  readonly #actor: Actor
  readonly #link: Link
  readonly #objects: Objects
  readonly #store: Store
  readonly #clock: Clock
  readonly #log: Log
  #count = 0
  #ends = false
  /** Creates that were answered: they must be there, or have been deleted on purpose. */
  readonly acknowledged = new Map<string, string>()

  constructor(init: LoadInit, { world, etcd, books }: LoadComponents) {
    this.#init = init
    this.#world = world
    this.#books = books
    this.#chance = world.chance.fork()
    this.#actor = new Actor('user', world, new MachineClocks(world, 1, 0))
    this.#clock = this.#actor.clock
    this.#log = this.#actor.log
    this.#link = new Link(world, world.chance.fork())
    this.#link.quality = { leastMs: 1, mostMs: 20, loss: 0.01, doubling: 0.005 }
    this.#store = createStoreClient('user', this.#actor, this.#link, etcd)
    const { random } = world.chance.fork()
    this.#objects = createObjects({}, { store: this.#store, clock: this.#clock, random })
  }

  /** Asks for something now and then, until it is stopped. */
  start(): void {
    const next = (): void => {
      if (this.#ends) return
      this.#act()
      this.#world.after(this.#chance.between(50, 2_500), next)
    }
    next()
  }

  /** Many at once, whatever else there is. */
  burst(count: number, priority: number): void {
    for (let made = 0; made < count; made++) this.#create({ priority, powerState: 'Running' })
  }

  stop(): void {
    this.#ends = true
  }

  /** A host that will never come back is given up; asked for again until it is so. */
  forget(host: string): void {
    const components = {
      store: this.#store,
      objects: this.#objects,
      clock: this.#clock,
      log: this.#log,
    }
    const ask = (): void => {
      forgetHost(host, components).catch(error => {
        if (isFailure(error, 'notFound')) return
        this.#world.tell('user', `forgetting ${host} failed: ${messageOf(error)}`)
        this.#world.after(2_000, ask)
      })
    }
    ask()
  }

  #act(): void {
    const machine = this.#pickMachine()
    const dice = this.#chance.integer(100)
    const isFull = this.#books.machines.size >= this.#init.machinesMost
    if (dice < 50 && isFull) return
    if (dice < 5) for (let count = 0; count < 12; count++) this.#create()
    else if (dice < 50 || machine === undefined) this.#create()
    else if (dice < 70) this.#remove(machine)
    else if (dice < 85) this.#change(machine, 'powerState', ['Running', 'Stopped'])
    else if (dice < 90) this.#change(machine, 'onHostLoss', ['Wait', 'Replace'])
    else if (dice < 93) this.#change(machine, 'cpu', [1, 2])
    else this.#changeHost()
  }

  #pickMachine(): VirtualMachine | undefined {
    const all = [...this.#books.machines.values()]
    return all.length === 0 ? undefined : this.#chance.pick(all)
  }

  #create(given: object = {}): void {
    // Now and then a name that was there before.
    const again = this.#count > 3 && this.#chance.happens(0.1)
    const number = again ? this.#chance.integer(this.#count) : this.#count++
    const name = `vm-${number}`
    const selects = this.#chance.happens(0.2)
    const spec = {
      image: 'micro',
      cpu: this.#chance.pick([0.5, 1, 1, 2, 4]),
      memory: this.#chance.pick(['512Mi', '1Gi', '2Gi']),
      onHostLoss: this.#chance.happens(0.65) ? 'Replace' : 'Wait',
      restartPolicy: this.#chance.pick(['OnFailure', 'OnFailure', 'Always']),
      priority: this.#chance.pick([0, 0, 0, 10]),
      ...(selects && { hostSelector: { zone: this.#chance.pick(this.#init.zones) } }),
      ...given,
    }
    const metadata = { name, namespace: 'default' }
    const object: unknown = {
      ...{ apiVersion: 'macfleet.dev/v1', kind: 'VirtualMachine', metadata, spec },
    }
    this.#try(`creating ${name}`, async () => {
      const made = await this.#objects.create(virtualMachineKind, object as VirtualMachine)
      const { uid = '' } = made.metadata
      this.#world.tell('user', `created ${name}, ${uid}, ${spec.onHostLoss}`)
      this.acknowledged.set(uid, name)
    })
  }

  #remove({ metadata }: VirtualMachine): void {
    const { uid = '', name } = metadata
    this.#world.tell('user', `deletes ${name} (${uid})`)
    this.#books.deletable.add(uid)
    const soon = this.#chance.happens(0.3) ? { gracePeriodSeconds: 0 } : {}
    this.#try(`deleting ${name}`, () =>
      this.#objects.remove(virtualMachineKind, metadata, { uid, ...soon }),
    )
  }

  #change(machine: VirtualMachine, field: string, values: readonly unknown[]): void {
    const value = this.#chance.pick(values)
    const { uid, name, namespace } = machine.metadata
    this.#world.tell('user', `sets ${field} of ${name} (${uid}) to ${value}`)
    this.#try(`changing ${name}`, () =>
      this.#objects.change(virtualMachineKind, { name, namespace }, current =>
        current.metadata.uid === uid
          ? { ...current, spec: { ...current.spec, [field]: value } }
          : undefined,
      ),
    )
  }

  #changeHost(): void {
    const name = this.#chance.pick(this.#init.hosts)
    const free = { schedulable: true, drain: false }
    const spec = this.#chance.pick([free, free, { schedulable: false }, { drain: true }])
    this.#world.tell('user', `sets ${JSON.stringify(spec)} of ${name}`)
    this.#try(`changing ${name}`, () =>
      this.#objects.change(hostKind, { name }, host => ({
        ...host,
        spec: { ...host.spec, ...spec },
      })),
    )
  }

  /** Once: what failed is asked for again by nobody. */
  #try(what: string, work: () => Promise<unknown>): void {
    work().catch(error => this.#world.tell('user', `${what} failed: ${messageOf(error)}`))
  }
}
