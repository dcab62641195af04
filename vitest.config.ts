import { defineConfig } from 'vitest/config'

/**
 * Two projects: `unit` (pure parts, memory and small files) runs side by side; `real` (QEMU guests,
 * daemons, systemd) is kept to two files at a time, because a guest under TCG takes a core.
 */
export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: 'unit',
          include: [
            '{base,resources,kvm,images,cluster,interface,agent}/**/*.test.ts',
            'test/{,bench/,simulation/}*.test.ts',
          ],
          testTimeout: 20_000,
        },
      },
      {
        test: {
          name: 'real',
          include: ['test/real/**/*.test.ts'],
          testTimeout: 120_000,
          hookTimeout: 120_000,
          maxWorkers: 2,
        },
      },
    ],
  },
})
