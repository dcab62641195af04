import { execFileSync } from 'node:child_process'
import { constants } from 'node:fs'
import { mkdir, mkdtemp, readFile, readlink, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { openGuestFile } from './guest-file.ts'
import { guestFolder, makeGuestFolder, removeGuestFolder } from './guest-folder.ts'
import { copyBootFile, linkImage } from './image-file.ts'

const uid = '0b1c2d3e-4f50-4617-8293-a4b5c6d7e8f9'
let root: string

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'macfleet-folder-'))
})
afterEach(() => rm(root, { recursive: true }))

const roots = () => ({ dataRoot: join(root, 'data'), runRoot: join(root, 'run') })

describe('the folder of a guest', () => {
  test('has short names for its sockets', async () => {
    const folder = guestFolder(roots(), uid)
    await makeGuestFolder(folder, undefined)
    await makeGuestFolder(folder, undefined)
    expect(folder.qmp).toBe(join(root, 'run', '0b1c2d3e4f50', 'qmp.sock'))
    expect(await readlink(folder.sockets)).toBe(folder.guest)
    expect((await stat(folder.path)).mode & 0o777).toBe(0o711)
    expect((await stat(folder.guest)).mode & 0o777).toBe(0o700)
    await removeGuestFolder(folder)
    await removeGuestFolder(folder)
    await expect(stat(folder.path)).rejects.toThrow('ENOENT')
    await expect(readlink(folder.sockets)).rejects.toThrow('ENOENT')
  })

  test('refuses socket paths that the system does not take', () => {
    const fits = 107 - '/0b1c2d3e4f50/qmp-watch.sock'.length
    const runRoot = `/${'x'.repeat(fits - 1)}`
    expect(guestFolder({ dataRoot: '/d', runRoot }, uid).qmpWatch).toHaveLength(107)
    expect(() => guestFolder({ dataRoot: '/d', runRoot: `${runRoot}x` }, uid)).toThrow(
      'has 108 bytes; the system takes at most 107',
    )
  })

  test('is never made for a name that could lead elsewhere', () => {
    expect(() => guestFolder(roots(), '../../etc')).toThrow("not a VM's uid")
  })
})

describe('a file in reach of a guest', () => {
  test('is opened only when it is a regular file', async () => {
    const path = join(root, 'console.log')
    await writeFile(path, 'hello')
    const handle = await openGuestFile(path)
    expect(await handle.readFile('utf8')).toBe('hello')
    await handle.close()
    await symlink('/etc/passwd', join(root, 'link'))
    execFileSync('mkfifo', [join(root, 'pipe')])
    await mkdir(join(root, 'folder'))
    for (const name of ['link', 'pipe', 'folder']) {
      await expect(openGuestFile(join(root, name))).rejects.toThrow('no regular file')
    }
    const write = openGuestFile(join(root, 'pipe'), constants.O_WRONLY)
    await expect(write).rejects.toThrow('no regular file')
    await expect(openGuestFile(join(root, 'missing'))).rejects.toThrow('ENOENT')
  })
})

describe('what a guest reads from outside', () => {
  const owner = { userId: 210_000, groupId: 210_000 }

  test('is the image itself, and as readable as it was', async () => {
    const [source, target] = [join(root, 'image'), join(root, 'base.raw')]
    await writeFile(source, 'image', { mode: 0o444 })
    await linkImage(source, target, owner)
    await linkImage(source, target, owner)
    expect((await stat(target)).ino).toBe((await stat(source)).ino)
    expect((await stat(source)).nlink).toBe(2)
  })

  test('is refused when guests could not read it', async () => {
    const source = join(root, 'image')
    await writeFile(source, 'image', { mode: 0o600 })
    await expect(linkImage(source, join(root, 'base.raw'), owner)).rejects.toThrow('0444')
    await expect(linkImage(root, join(root, 'base.raw'), undefined)).rejects.toThrow('may not read')
    await linkImage(source, join(root, 'base.raw'), undefined)
  })

  test('is a copy of a kernel', async () => {
    const [source, target] = [join(root, 'vmlinuz'), join(root, 'kernel')]
    await writeFile(source, 'one', { mode: 0o600 })
    await copyBootFile(source, target)
    const { ino } = await stat(target)
    await copyBootFile(source, target)
    expect((await stat(target)).ino, 'the same kernel is not copied again').toBe(ino)
    await writeFile(source, 'two, and longer')
    await copyBootFile(source, target)
    expect(await readFile(target, 'utf8')).toBe('two, and longer')
    expect((await stat(target)).mode & 0o777).toBe(0o444)
  })
})
