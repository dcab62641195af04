import { readFile } from 'node:fs/promises'
import { failure } from '../../base/errors.ts'
import { messageOf } from '../../base/log.ts'
import { machineIdDigest } from '../../cluster/membership/tokens.ts'

/**
 * A digest of the machine id, see machine-id(5).
 * @throws badRequest when the machine has none
 */
export async function readMachineId(path: string): Promise<string> {
  const unfit = (detail: string) => failure('badRequest', { detail: `${path}: ${detail}` })
  const text = await readFile(path, 'utf8').catch(error => {
    throw unfit(`${messageOf(error)}; systemd-machine-id-setup makes one`)
  })
  if (!/^[0-9a-f]{32}$/i.test(text.trim())) {
    throw unfit('it holds no machine id; systemd-machine-id-setup makes one')
  }
  return machineIdDigest(text)
}
