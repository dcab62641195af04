import { statfs } from 'node:fs/promises'
import { cpus, loadavg } from 'node:os'
import { currentLoad, mem } from 'systeminformation'
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

/** Takes one sample. CPU use counts from the call before. */
export async function takeSample(folder: string): Promise<Sample> {
  const [load, memory, disk] = await Promise.all([currentLoad(), mem(), statfs(folder)])
  return {
    cores: cpus().length,
    cpuFraction: Math.min(1, Math.max(0, load.currentLoad / 100)),
    memoryTotalBytes: memory.total,
    memoryUsedBytes: memory.total - memory.available,
    diskTotalBytes: disk.blocks * disk.bsize,
    diskFreeBytes: disk.bavail * disk.bsize,
    load1: loadavg()[0] ?? 0,
  }
}

/** Takes a first sample and goes on with one every interval, counted from the end of the one before. */
export async function startMonitor(
  init: MonitorInit,
  components: MonitorComponents,
): Promise<Monitor> {
  const { clock, log } = components
  const gauges = makeGauges(components.metrics)
  const listeners: ((sample: Sample) => void)[] = []
  let sample = await takeSample(init.folder)
  let timer: Timer | undefined
  let stopped = false

  const tick = async (): Promise<void> => {
    try {
      sample = await takeSample(init.folder)
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
