import { expect, test } from 'vitest'
import { imageNameOf } from './image-import.ts'
import { nameStem, readLabels, readPort, withSshPort } from './machine-spec.ts'

test.each([
  ['80', { guestPort: 80, protocol: 'TCP' }],
  ['8080:80', { guestPort: 80, hostPort: 8080, protocol: 'TCP' }],
  ['53/udp', { guestPort: 53, protocol: 'UDP' }],
  ['5353:53/UDP', { guestPort: 53, hostPort: 5353, protocol: 'UDP' }],
])('--port %s', (text, port) => {
  expect(readPort(text)).toEqual(port)
})

test.each(['', 'x', '0', '65536', '80:', ':80', '1:2:3', '80/sctp', '-1', '70000:80'])(
  '--port %j is refused',
  text => {
    expect(() => readPort(text)).toThrow('--port takes')
  },
)

test('port 22 is forwarded unless it is there or not wanted', () => {
  const web = readPort('80')
  expect(withSshPort([web], true).map(port => port.guestPort)).toEqual([22, 80])
  expect(withSshPort([readPort('2222:22')], true)).toHaveLength(1)
  expect(withSshPort([web], false)).toEqual([web])
})

test('labels are KEY=VALUE, the value may hold more signs and be empty', () => {
  expect(readLabels(['a=b', 'c=', 'd=e=f'])).toEqual({ a: 'b', c: '', d: 'e=f' })
  expect(() => readLabels(['a'])).toThrow('--label takes KEY=VALUE')
  expect(() => readLabels(['=a'])).toThrow('--label takes KEY=VALUE')
})

test('names are made of images and files', () => {
  expect(nameStem('Debian_12.5')).toBe('debian-12-5')
  expect(nameStem('---')).toBe('vm')
  expect(nameStem('x'.repeat(80))).toHaveLength(50)
  expect(imageNameOf('/a/b/Debian-12.qcow2')).toBe('debian-12')
  expect(imageNameOf('macOS 14.raw')).toBe('macos-14')
})
