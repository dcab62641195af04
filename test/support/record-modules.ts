import { appendFileSync } from 'node:fs'
import { registerHooks } from 'node:module'

/**
 * Loaded before a program (`node --import`): writes the address of every module that it loads into
 * the file that RECORD_MODULES names, one a line.
 */
const path = process.env['RECORD_MODULES']
if (path !== undefined) {
  registerHooks({
    load(url, context, next) {
      appendFileSync(path, `${url}\n`)
      return next(url, context)
    },
  })
}
