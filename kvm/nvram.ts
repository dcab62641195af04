import type { GuestFolder } from './guest-folder.ts'
import type { UserIdentity } from './guest-user.ts'
import { createOnce, type DiskToolComponents } from './overlay.ts'

const timeoutMs = 30_000

/** A guest's UEFI variables to be made. */
export interface NvramInit {
  folder: GuestFolder
  /** The firmware's own empty variable store, a raw file. */
  template: string
  owner: UserIdentity | undefined
}

/**
 * Makes a guest's store of UEFI variables unless it is there. qcow2, because QEMU refuses to save
 * the state of a machine whose writable flash is raw.
 * @throws commandFailed
 */
export async function createNvram(init: NvramInit, components: DiskToolComponents): Promise<void> {
  await createOnce(init.folder, init.folder.nvram, init.owner, temporary => {
    const args = ['convert', '-q', '-f', 'raw', '-O', 'qcow2', init.template, temporary]
    return components.run(components.qemuImage, args, { timeoutMs })
  })
}
