/** Nobody, when we are root; otherwise there is only ourselves. */
export const sandboxIdentity = process.getuid?.() === 0 ? { uid: 65534, gid: 65534 } : undefined
