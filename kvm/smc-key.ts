import { chmod, chown } from 'node:fs/promises'
import { failure } from '../base/errors.ts'
import { writeFileAtomic } from '../base/files.ts'
import type { GuestFolder } from './guest-folder.ts'
import type { UserIdentity } from './guest-user.ts'

/** QEMU starts with a key of any length and only prints a warning; macOS then never boots. */
const keyLength = 64

/**
 * Writes the SMC device and its key as a QEMU configuration file (`-readconfig`), because arguments
 * are seen by every user of the host. The guest's group may read it: its QEMU must, and the guest
 * can ask the device for the key anyway. The key itself comes from the operator's configuration,
 * never from us.
 * @throws machineConfigMissing when the key does not have exactly 64 printable characters
 */
export async function writeSmcKey(
  folder: GuestFolder,
  key: string,
  owner: UserIdentity | undefined,
): Promise<void> {
  if (key.length !== keyLength || !/^[ !#-~]+$/.test(key)) {
    const what = `an SMC key of exactly ${keyLength} characters`
    throw failure('machineConfigMissing', { machine: 'macos', what })
  }
  const text = `[device "smc"]\n  driver = "isa-applesmc"\n  osk = "${key}"\n`
  await writeFileAtomic(folder.smcKey, text, 0o600)
  if (owner === undefined) return
  await chown(folder.smcKey, 0, owner.groupId)
  await chmod(folder.smcKey, 0o440)
}
