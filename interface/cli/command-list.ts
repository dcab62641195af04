import type { CommandModule } from './command-module.ts'

/** One command: what the program's help says of it, and where its code is. */
export interface CommandEntry {
  name: string
  summary: string
  /** Heading in the program's help. */
  group: string
  load(): Promise<CommandModule>
}

const machines = 'Virtual machines:'
const access = 'Into a virtual machine:'
const resources = 'Any resource:'
const fleet = 'Images, hosts and this program:'

/** Every command of `macfleet`. Only the chosen one's module is loaded. */
export const commandList: readonly CommandEntry[] = [
  {
    name: 'run',
    group: machines,
    summary: 'create a virtual machine and say how to reach it',
    load: () => import('./commands/run.ts'),
  },
  {
    name: 'start',
    group: machines,
    summary: 'start stopped virtual machines',
    load: () => import('./commands/start.ts'),
  },
  {
    name: 'stop',
    group: machines,
    summary: 'shut virtual machines down',
    load: () => import('./commands/stop.ts'),
  },
  {
    name: 'restart',
    group: machines,
    summary: 'shut virtual machines down and start them again',
    load: () => import('./commands/restart.ts'),
  },
  {
    name: 'suspend',
    group: machines,
    summary: 'pause virtual machines and keep their memory',
    load: () => import('./commands/suspend.ts'),
  },
  {
    name: 'resume',
    group: machines,
    summary: 'let suspended virtual machines go on',
    load: () => import('./commands/resume.ts'),
  },
  {
    name: 'ssh',
    group: access,
    summary: 'log in, or run a command, by SSH',
    load: () => import('./commands/ssh.ts'),
  },
  {
    name: 'console',
    group: access,
    summary: 'open the serial console',
    load: () => import('./commands/console.ts'),
  },
  {
    name: 'exec',
    group: access,
    summary: 'run a command by the guest agent',
    load: () => import('./commands/exec.ts'),
  },
  {
    name: 'logs',
    group: access,
    summary: 'print what the guest wrote to its serial console',
    load: () => import('./commands/logs.ts'),
  },
  {
    name: 'cp',
    group: access,
    summary: 'copy files to or from a virtual machine',
    load: () => import('./commands/cp.ts'),
  },
  {
    name: 'get',
    group: resources,
    summary: 'list objects, or show some',
    load: () => import('./commands/get.ts'),
  },
  {
    name: 'describe',
    group: resources,
    summary: 'all there is to know of an object, with its events',
    load: () => import('./commands/describe.ts'),
  },
  {
    name: 'apply',
    group: resources,
    summary: 'create or change objects as files say',
    load: () => import('./commands/apply.ts'),
  },
  {
    name: 'delete',
    group: resources,
    summary: 'delete objects',
    load: () => import('./commands/delete.ts'),
  },
  {
    name: 'image',
    group: fleet,
    summary: 'import, list and remove images',
    load: () => import('./commands/image.ts'),
  },
  {
    name: 'cluster',
    group: fleet,
    summary: 'make, join and look after a fleet of hosts',
    load: () => import('./commands/cluster.ts'),
  },
  {
    name: 'host',
    group: fleet,
    summary: 'approve, cordon, drain and give up hosts',
    load: () => import('./commands/host.ts'),
  },
  {
    name: 'explain',
    group: machines,
    summary: 'why a virtual machine is where it is, or nowhere',
    load: () => import('./commands/explain.ts'),
  },
  {
    name: 'top',
    group: fleet,
    summary: 'what hosts and virtual machines use',
    load: () => import('./commands/top.ts'),
  },
  {
    name: 'dev',
    group: fleet,
    summary: 'a fleet of hosts on this machine, to play with',
    load: () => import('./commands/dev.ts'),
  },
  {
    name: 'doctor',
    group: fleet,
    summary: 'say what this host lacks and how to get it',
    load: () => import('./commands/doctor.ts'),
  },
  {
    name: 'context',
    group: fleet,
    summary: 'choose the daemon to talk to',
    load: () => import('./commands/context.ts'),
  },
  {
    name: 'completion',
    group: fleet,
    summary: 'print the completion script of a shell',
    load: () => import('./commands/completion.ts'),
  },
  {
    name: 'version',
    group: fleet,
    summary: 'versions of this program and of the daemon',
    load: () => import('./commands/version.ts'),
  },
]
