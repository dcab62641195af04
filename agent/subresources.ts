import { Readable } from 'node:stream'
import { failure } from '../base/errors.ts'
import type { Subresources } from '../interface/api/subresources.ts'
import { followLog, readLogTail } from '../kvm/console-log.ts'
import { guestFolder } from '../kvm/guest-folder.ts'
import type { Image } from '../resources/image.ts'
import type { VirtualMachine } from '../resources/virtual-machine.ts'
import type { AccessKey } from './access-key.ts'
import { prepareExec } from './exec.ts'
import type { ImageController } from './image-controller.ts'
import type { Commits } from './images/commit-machine.ts'
import type { HostImages } from './images/start-images.ts'
import type { MachineController } from './machine/controller.ts'
import type { MachineContext } from './machine/machine-context.ts'
import type { Tracked } from './machine/tracked.ts'

/** Which parts of the daemon serve. */
export interface SubresourcesInit {
  machines: MachineController
  imageController: ImageController
  commits: Commits
  accessKey: AccessKey | undefined
  hostImages: Pick<HostImages, 'push' | 'repairs' | 'library'>
}

/** What only the daemon can do for the API: reach into guests and take in images. */
export function createSubresources(init: SubresourcesInit, context: MachineContext): Subresources {
  const { machines, imageController, commits, hostImages } = init
  const trackedOf = (machine: VirtualMachine): Tracked => {
    const { uid = '', name } = machine.metadata
    const tracked = machines.find(uid)
    if (tracked !== undefined) return tracked
    throw failure('consoleUnavailable', { detail: `${name} is not on this host` })
  }
  return {
    async openConsole(machine) {
      const { runtime, name } = trackedOf(machine)
      if (runtime === undefined) {
        throw failure('consoleUnavailable', { detail: `${name} does not run` })
      }
      return await runtime.console.open()
    },
    async prepareCommand(machine, request) {
      const { limits } = context
      return prepareExec(trackedOf(machine), request, { limits, accessKey: init.accessKey })
    },
    async openLog(machine, { tailLines, limitBytes, follow, signal }) {
      const { uid = '' } = machine.metadata
      const path = guestFolder(context.host.roots, uid).consoleLog
      const most = 2 * context.limits.serialLogBytes
      const tail = {
        limitBytes: Math.min(limitBytes ?? most, most),
        ...(tailLines !== undefined && { lines: tailLines }),
      }
      if (!follow) return Readable.from([await readLogTail(path, tail)], { objectMode: false })
      const pieces = followLog({ path, tail, signal }, context.clock)
      return Readable.from(pieces, { objectMode: false })
    },
    receiveImagePart: (image, part, bytes, request) =>
      imageController.receive(image, part, bytes, request),
    pushImage: hostImages.push,
    commitMachine: (machine, request) => commits.commit(machine, request),
    async verifyImage(image, how) {
      const { checkedChunks, bad } = await hostImages.repairs.verify(image, how)
      return { checkedChunks, bad: bad.map(part => ({ ...part })) }
    },
    async listLibrary({ signal }) {
      const { entries, isWhole } = await hostImages.library().list(signal)
      return { entries: entries.map(entry => ({ ...entry })), isWhole }
    },
    async checkLibrary(name, { signal }) {
      const { wrong, ...counts } = await hostImages.library().check(name, () => {}, signal)
      return { ...counts, wrong: wrong.map(each => ({ ...each })) }
    },
    async inspectImage(image) {
      return JSON.parse(JSON.stringify(context.images.inspect(digestOf(image))))
    },
  }
}

function digestOf(image: Image): string {
  const digest = image.status?.digest
  if (digest !== undefined) return digest
  const { name } = image.metadata
  throw failure('imageNotReady', { name, phase: image.status?.phase ?? 'Importing' })
}
