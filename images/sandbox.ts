import type { CommandResult, CommandRunner } from '../base/command.ts'
import { failure } from '../base/errors.ts'

/** The identity that tools get which read files from outside; it owns nothing that matters. */
export interface SandboxIdentity {
  uid: number
  gid: number
}

/** What a contained program may use. */
export interface SandboxLimits {
  /** Wall time; also the limit of its CPU time. */
  timeoutMs: number
  /** Size of the largest file that it may write. */
  fileBytes: number
  /** Bytes of output that are kept. */
  outputBytes?: number
  signal?: AbortSignal
  /** Where it runs; relative file names then need no rights on the folders above. */
  workingFolder?: string
}

/** Runs a program under containment and hands back how it ended, whatever its exit code. */
export type Sandbox = (
  command: string,
  args: readonly string[],
  limits: SandboxLimits,
) => Promise<CommandResult>

/** Address space of a contained program: 256 MiB did for qemu-img with clusters of 2 MiB. */
const addressSpaceBytes = 1024 ** 3
const path = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'

/**
 * Makes the containment for tools that read files from outside: no environment of ours, no
 * privileges and none to be had, bounds on memory, time and file size, and death with the daemon
 * (setpriv(1), prlimit(1)).
 * @param identity who the programs run as; without it (not root) they stay what we are
 */
export function createSandbox(run: CommandRunner, identity: SandboxIdentity | undefined): Sandbox {
  return async (command, args, limits) => {
    const seconds = Math.ceil(limits.timeoutMs / 1000)
    // One arena: each further one of glibc would take 64 MiB of address space per thread.
    const environment = ['-i', `PATH=${path}`, 'LC_ALL=C', 'MALLOC_ARENA_MAX=1']
    const bounds = [
      `--as=${addressSpaceBytes}`,
      `--cpu=${seconds}`,
      `--fsize=${limits.fileBytes}`,
      '--core=0',
    ]
    const contained = [
      ...environment,
      'setpriv',
      ...privileges(identity),
      'prlimit',
      ...bounds,
      '--',
      command,
      ...args,
    ]
    const result = await run('env', contained, {
      timeoutMs: limits.timeoutMs,
      signal: limits.signal,
      workingFolder: limits.workingFolder,
      outputBytes: limits.outputBytes,
      acceptedCodes: anyCode,
    })
    const missing = missingProgram(result, command)
    if (missing !== undefined) throw failure('commandMissing', { command: missing })
    return result
  }
}

/** Which program of the chain env, setpriv, prlimit, command could not be executed, if any. */
function missingProgram({ code, stderr }: CommandResult, command: string): string | undefined {
  // A program that can't be loaded for another reason ends with 127 too, and says so itself.
  if (code !== 127 || !/failed to execute|No such file or directory/.test(stderr)) return undefined
  return (
    ['setpriv', 'prlimit'].find(tool => stderr.includes(tool) && !stderr.includes(command)) ??
    command
  )
}

/** -1 stands for an end by a signal. */
const anyCode = Array.from({ length: 257 }, (_, index) => index - 1)

function privileges(identity: SandboxIdentity | undefined): string[] {
  const always = ['--no-new-privs', '--pdeathsig', 'KILL']
  if (identity === undefined) return always
  const who = ['--reuid', `${identity.uid}`, '--regid', `${identity.gid}`, '--clear-groups']
  return [...who, '--bounding-set=-all', '--inh-caps=-all', '--ambient-caps=-all', ...always]
}
