export * from '../agent/dev/local-host.ts'
