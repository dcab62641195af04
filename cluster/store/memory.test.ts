import { storeCompliance } from './compliance.ts'
import { createMemoryStore } from './memory.ts'

storeCompliance('memory', () => ({
  open: async components => createMemoryStore(components),
  remove: async () => {},
}))
