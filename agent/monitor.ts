import { readFile, statfs } from 'node:fs/promises'
import { cpus, loadavg } from 'node:os'
import { mem } from 'systeminformation'
import type { Clock, Timer } from '../base/clock.ts'
import { type Log, messageOf } from '../base/log.ts'
import { Gauge, type Registry } from '../base/metrics.ts'

/** What the machine has and what of it is in use, at one moment. */
export interface Sample {
  cores: number
  /** Busy share of all cores since the sample before, 0 to 1. */
  cpuFraction: number
  memoryTotalBytes: number
  /** Memory that is not available to new programs (page cache does not count). */
  memoryUsedBytes: number
  /** Of the file system that holds the data folder. */
  diskTotalBytes: number
  diskFreeBytes: number
  /** Load average over a minute. */
  load1: number
}

/** What is watched and how often. */
export interface MonitorInit {
  /** A folder on the file system whose room counts. */
  folder: string
  intervalMs: number
}

/** What a monitor needs. */
export interface MonitorComponents {
  clock: Clock
  log: Log
  metrics: Registry
}

/** Samples the machine on and on. */
export interface Monitor {
  /** The newest sample. */
  current(): Sample
  /** Calls back after every sample. */
  onSample(listener: (sample: Sample) => void): void
  stop(): void
}

/** What the processors have done since the machine started, in clock ticks of all cores together. */
export interface ProcessorTime {
  busyTicks: number
  totalTicks: number
}

/**
 * Reads the first line of /proc/stat (proc(5)): user, nice, system, idle, iowait, irq, softirq,
 * steal; what follows is part of user and nice already. systeminformation's currentLoad() reads the
 * same, but starts a shell, cat and grep for it and lets the whole process wait for them.
 */
export function parseProcessorTime(stat: string): ProcessorTime {
  const line = stat.slice(0, stat.indexOf('\n'))
  const ticks = line.trim().split(/\s+/).slice(1, 9).map(Number)
  const [, , , idle = 0, iowait = 0] = ticks
  const totalTicks = ticks.reduce((sum, count) => sum + count, 0)
  return { busyTicks: totalTicks - idle - iowait, totalTicks }
}

/** The busy share of all cores between two readings, 0 to 1. The kernel's iowait may go backwards. */
export function busyFraction(before: ProcessorTime, now: ProcessorTime): number {
  const totalTicks = now.totalTicks - before.totalTicks
  if (totalTicks <= 0) return 0
  return Math.min(1, Math.max(0, (now.busyTicks - before.busyTicks) / totalTicks))
}

/** Makes what takes samples. CPU use counts from the sample before; the first one has it since boot. */
function createSampler(folder: string): () => Promise<Sample> {
  const cores = cpus().length
  let before: ProcessorTime = { busyTicks: 0, totalTicks: 0 }
  return async () => {
    const stat = readFile('/proc/stat', 'latin1').then(parseProcessorTime)
    const [processor, memory, disk] = await Promise.all([stat, mem(), statfs(folder)])
    const cpuFraction = busyFraction(before, processor)
    before = processor
    return {
      cores,
      cpuFraction,
      memoryTotalBytes: memory.total,
      memoryUsedBytes: memory.total - memory.available,
      diskTotalBytes: disk.blocks * disk.bsize,
      diskFreeBytes: disk.bavail * disk.bsize,
      load1: loadavg()[0] ?? 0,
    }
  }
}

/** Takes a first sample and one every interval, counted from the end of the one before. */
export async function startMonitor(
  init: MonitorInit,
  components: MonitorComponents,
): Promise<Monitor> {
  const { clock, log } = components
  const gauges = makeGauges(components.metrics)
  const listeners: ((sample: Sample) => void)[] = []
  const takeSample = createSampler(init.folder)
  let sample = await takeSample()
  let timer: Timer | undefined
  let stopped = false

  const tick = async (): Promise<void> => {
    try {
      sample = await takeSample()
      gauges(sample)
      for (const listener of listeners) listener(sample)
    } catch (error) {
      log.warn({ error: messageOf(error) }, 'the machine could not be measured')
    }
    if (!stopped) timer = clock.setTimer(init.intervalMs, tick)
  }

  timer = clock.setTimer(init.intervalMs, tick)
  return {
    current: () => sample,
    onSample: listener => listeners.push(listener),
    stop() {
      stopped = true
      timer?.cancel()
    },
  }
}

function makeGauges(registry: Registry): (sample: Sample) => void {
  const gauge = (name: string, help: string) => new Gauge({ name, help, registers: [registry] })
  const cpu = gauge('macfleet_host_cpu_busy_ratio', 'Busy share of all cores, 0 to 1.')
  const memory = gauge('macfleet_host_memory_used_bytes', 'Memory in use, page cache left out.')
  const disk = gauge('macfleet_host_disk_free_bytes', 'Free bytes where the data folder lies.')
  const load = gauge('macfleet_host_load1', 'Load average over a minute.')
  return sample => {
    cpu.set(sample.cpuFraction)
    memory.set(sample.memoryUsedBytes)
    disk.set(sample.diskFreeBytes)
    load.set(sample.load1)
  }
}
