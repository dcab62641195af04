/** One row: what programs read (reason, HTTP status) and what people read (sentence, what to do next). */
interface ErrorRow {
  reason: string
  httpStatus: number
  sentence: string
  next: string
}

/**
 * Every error that reaches a user. `reason` is Kubernetes' StatusReason, so that client libraries
 * know what to do; `{name}` is filled in by `failure()`. Sentences carry no full stop at the end.
 */
export const errorTable = {
  // Requests
  badRequest: { reason: 'BadRequest', httpStatus: 400, sentence: '{detail}', next: '' },
  invalid: {
    reason: 'Invalid',
    httpStatus: 422,
    sentence: '{kind} "{name}" is invalid: {detail}',
    next: '',
  },
  notFound: {
    reason: 'NotFound',
    httpStatus: 404,
    sentence: '{resource} "{name}" not found',
    next: '',
  },
  pathNotFound: {
    reason: 'NotFound',
    httpStatus: 404,
    sentence: 'the server has nothing at {path}',
    next: 'GET /apis/macfleet.dev/v1 lists what there is',
  },
  alreadyExists: {
    reason: 'AlreadyExists',
    httpStatus: 409,
    sentence: '{resource} "{name}" already exists',
    next: 'Choose another name, or delete it first',
  },
  conflict: {
    reason: 'Conflict',
    httpStatus: 409,
    sentence: '{resource} "{name}" was changed by somebody else since you read it',
    next: 'Read it again and repeat the change',
  },
  tooLarge: {
    reason: 'RequestEntityTooLarge',
    httpStatus: 413,
    sentence: 'the request has more than {limitBytes} bytes',
    next: 'Send less at once',
  },
  tooMany: {
    reason: 'TooManyRequests',
    httpStatus: 429,
    sentence: 'the limit of {limit} {what} is reached',
    next: 'Try again when some have ended',
  },
  forbidden: { reason: 'Forbidden', httpStatus: 403, sentence: '{detail}', next: '' },
  namespaceTerminating: {
    reason: 'Forbidden',
    httpStatus: 403,
    sentence: 'the namespace {namespace} is being deleted and takes no new objects',
    next: 'Wait until it is gone, or use another one',
  },
  methodNotAllowed: {
    reason: 'MethodNotAllowed',
    httpStatus: 405,
    sentence: '{path} does not take {method}',
    next: 'It takes {allowed}',
  },
  notAcceptable: {
    reason: 'NotAcceptable',
    httpStatus: 406,
    sentence: 'none of the types that you accept is served here: {accept}',
    next: 'Accept application/json',
  },
  socketTaken: {
    reason: 'Conflict',
    httpStatus: 409,
    sentence: '{path} {detail}',
    next: 'Stop that daemon, or give this one a socket of its own (--socket)',
  },
  unsupportedMediaType: {
    reason: 'UnsupportedMediaType',
    httpStatus: 415,
    sentence: 'a body of type {type} is not understood here',
    next: 'Send {supported}',
  },
  timeout: {
    reason: 'Timeout',
    httpStatus: 504,
    sentence: '{what} took longer than {timeoutMs} ms',
    next: '',
  },
  unavailable: {
    reason: 'ServiceUnavailable',
    httpStatus: 503,
    sentence: '{what} is not available: {detail}',
    next: '{advice}',
  },
  internal: {
    reason: 'InternalError',
    httpStatus: 500,
    sentence: 'internal error: {detail}',
    next: 'This is a fault of macfleet; its log has more',
  },

  // Programs that we start
  commandMissing: {
    reason: 'ServiceUnavailable',
    httpStatus: 503,
    sentence: 'the program {command} is not on this host',
    next: 'Install it; `macfleet doctor` names the package',
  },
  commandFailed: {
    reason: 'InternalError',
    httpStatus: 500,
    sentence: '{command} failed ({outcome}): {output}',
    next: '',
  },
  commandTimedOut: {
    reason: 'Timeout',
    httpStatus: 504,
    sentence: '{command} did not end within {timeoutMs} ms',
    next: '',
  },

  // The store
  revisionCompacted: {
    reason: 'Expired',
    httpStatus: 410,
    sentence: 'revision {revision} is too old: the oldest kept is {oldest}',
    next: 'List again and watch from the revision of that list',
  },
  revisionUnknown: {
    reason: 'Expired',
    httpStatus: 410,
    sentence: 'revision {revision} is not of this store, whose newest is {newest}',
    next: 'List again and watch from the revision of that list',
  },
  watcherTooSlow: {
    reason: 'Expired',
    httpStatus: 410,
    sentence: 'the watch fell more than {limit} events behind and was ended',
    next: 'List again and watch from the revision of that list',
  },
  storeRequestTooLarge: {
    reason: 'RequestEntityTooLarge',
    httpStatus: 413,
    sentence: 'one transaction takes at most {limit} {what}',
    next: 'Write less at once',
  },
  storeFull: {
    reason: 'ServiceUnavailable',
    httpStatus: 503,
    sentence: 'the store has reached its limit of {limitBytes} bytes',
    next: 'Delete objects that are no longer needed',
  },
  leaseNotFound: {
    reason: 'NotFound',
    httpStatus: 404,
    sentence: 'lease {lease} has ended or never was',
    next: '',
  },
  storeLocked: {
    reason: 'Conflict',
    httpStatus: 409,
    sentence: 'another process has the store in {folder} open',
    next: 'Stop that daemon, or give this one a data folder of its own (--data-dir)',
  },
  storeCorrupt: {
    reason: 'InternalError',
    httpStatus: 500,
    sentence: 'the store in {folder} is damaged: {detail}',
    next: 'Nothing was changed. Run `macfleetd --repair-store`, which keeps a copy of the folder',
  },

  // Launching a guest
  socketPathTooLong: {
    reason: 'Invalid',
    httpStatus: 422,
    sentence:
      'the socket path {path} has {lengthBytes} bytes; the system takes at most {limitBytes} (unix(7))',
    next: 'Give the daemon a shorter run folder (--run-dir)',
  },
  guestFileRefused: {
    reason: 'Forbidden',
    httpStatus: 403,
    sentence: '{path} is no regular file: its guest may have left its bounds',
    next: 'Treat that guest as hostile: stop it and look at its folder',
  },
  kvmUnusable: {
    reason: 'ServiceUnavailable',
    httpStatus: 503,
    sentence: 'KVM was asked for, but {detail}',
    next: 'Say `accelerator: auto` to emulate where KVM is missing; `macfleet doctor` has more',
  },
  firmwareMissing: {
    reason: 'ServiceUnavailable',
    httpStatus: 503,
    sentence: 'the firmware {firmware} is not on this host ({looked})',
    next: 'Install it (Debian: apt-get install ovmf)',
  },
  diskTooSmall: {
    reason: 'Invalid',
    httpStatus: 422,
    sentence: 'a disk of {diskBytes} bytes is too small for an image of {imageBytes} bytes',
    next: 'Ask for a disk of at least {imageBytes} bytes, or for none to get the size of the image',
  },
  imageUnreadable: {
    reason: 'InternalError',
    httpStatus: 500,
    sentence: 'guests may not read the image file {path}',
    next: 'Give it the mode 0444; `macfleet image verify` says whether its content is whole',
  },
  portTaken: {
    reason: 'Conflict',
    httpStatus: 409,
    sentence: 'port {port}/{protocol} of {address} is taken by {holder}',
    next: 'Choose another host port, or leave it out to be given a free one',
  },
  portsExhausted: {
    reason: 'ServiceUnavailable',
    httpStatus: 503,
    sentence: 'no port of {address} from {first} to {last} is free',
    next: 'Delete a virtual machine that has ports, or widen the range in the configuration',
  },
  seedInvalid: {
    reason: 'Invalid',
    httpStatus: 422,
    sentence: 'the user data can not be used: {detail}',
    next: 'cloud-init.readthedocs.io lists the formats',
  },
  machineConfigMissing: {
    reason: 'Invalid',
    httpStatus: 422,
    sentence: 'a {machine} guest needs {what}',
    next: 'The operator gives it in the configuration of this host',
  },

  // Controlling a guest
  guestUnreachable: {
    reason: 'ServiceUnavailable',
    httpStatus: 503,
    sentence: 'QEMU does not answer on {path}: {detail}',
    next: 'Wait: the daemon goes on trying. `macfleet describe vm` says how the guest is',
  },
  guestSocketRefused: {
    reason: 'Forbidden',
    httpStatus: 403,
    sentence: '{path} is no socket: its guest may have left its bounds',
    next: 'Treat that guest as hostile: stop it and look at its folder',
  },
  qemuRefused: {
    reason: 'InternalError',
    httpStatus: 500,
    sentence: 'QEMU refused {command}: {detail}',
    next: '',
  },
  qemuAnswerInvalid: {
    reason: 'InternalError',
    httpStatus: 500,
    sentence: "QEMU's answer to {command} does not have the form that is documented",
    next: 'Compare the QEMU on this host with those macfleet is tested with',
  },
  actionNotAllowed: {
    reason: 'Conflict',
    httpStatus: 409,
    sentence: 'a guest that is {runState} takes no {action}: it must be {allowed}',
    next: '',
  },
  guestBusy: {
    reason: 'Conflict',
    httpStatus: 409,
    sentence: "a job ({job}) works on the guest's disk",
    next: 'Try again when it is done',
  },
  agentUnavailable: {
    reason: 'ServiceUnavailable',
    httpStatus: 503,
    sentence: 'the guest agent does not answer ({detail})',
    next: 'Wait for the guest to boot, or install qemu-guest-agent in it',
  },
  agentRefused: {
    reason: 'InternalError',
    httpStatus: 500,
    sentence: 'the guest agent refused {command}: {detail}',
    next: '',
  },
  agentAnswerInvalid: {
    reason: 'InternalError',
    httpStatus: 500,
    sentence: "the guest agent's answer to {command} does not have the form that is documented",
    next: 'Look at the agent in the guest: it is another program, or damaged',
  },
  agentAnswerTooLarge: {
    reason: 'RequestEntityTooLarge',
    httpStatus: 413,
    sentence: "the guest agent's answer to {command} has more than {limitBytes} bytes",
    next: 'Let the command write to a file in the guest, and copy that',
  },
  consoleUnavailable: {
    reason: 'ServiceUnavailable',
    httpStatus: 503,
    sentence: 'the console is not available: {detail}',
    next: 'Start the virtual machine first',
  },
  consoleTooSlow: {
    reason: 'TooManyRequests',
    httpStatus: 429,
    sentence: 'this console session fell more than {limitBytes} bytes behind and was ended',
    next: 'Open it again; `macfleet logs` has what was missed',
  },

  // The command line
  transitionFailed: {
    reason: 'InternalError',
    httpStatus: 500,
    sentence: '{kind} did not succeed: {detail}',
    next: 'Nothing is lost; mend what it names and try again',
  },
  hostNotDrained: {
    reason: 'Timeout',
    httpStatus: 504,
    sentence: '{count} machines still run on {host}: {detail}',
    next: 'Stop or delete them, or wait longer with --timeout',
  },
  usageWrong: {
    reason: 'BadRequest',
    httpStatus: 400,
    sentence: '{detail}',
    next: 'See `{command} --help`',
  },
  daemonNotThere: {
    reason: 'ServiceUnavailable',
    httpStatus: 503,
    sentence: 'no daemon answers on {socket} ({detail})',
    next: 'Start it: `systemctl start macfleetd`, or `script/quickstart`; `--socket` names another',
  },
  socketForbidden: {
    reason: 'Forbidden',
    httpStatus: 403,
    sentence: 'you may not open the socket {socket}',
    next: 'Join its group (`sudo usermod -aG macfleet $USER`, then log in again), or use sudo',
  },
  connectionBroke: {
    reason: 'ServiceUnavailable',
    httpStatus: 503,
    sentence: 'the connection to the daemon broke: {detail}',
    next: 'If the daemon was restarted, guests went on running: repeat the command',
  },
  answerInvalid: {
    reason: 'InternalError',
    httpStatus: 500,
    sentence: 'the answer to {request} is not what was asked for: {detail}',
    next: 'Do client and daemon have the same version? `macfleet version` shows both',
  },
  contextNotFound: {
    reason: 'NotFound',
    httpStatus: 404,
    sentence: 'there is no context {name}',
    next: '`macfleet context list` shows those there are',
  },
  settingsInvalid: {
    reason: 'Invalid',
    httpStatus: 422,
    sentence: 'the settings in {path} can not be used: {detail}',
    next: 'Mend the file, or remove it to begin anew',
  },
  fileUnreadable: {
    reason: 'BadRequest',
    httpStatus: 400,
    sentence: '{path} can not be read: {detail}',
    next: '',
  },
  manifestInvalid: {
    reason: 'Invalid',
    httpStatus: 422,
    sentence: '{source}: {detail}',
    next: '',
  },
  imageIsFile: {
    reason: 'BadRequest',
    httpStatus: 400,
    sentence: '{path} is a file, and `run` takes the name of an image',
    next: 'First: macfleet image import {path} --name {name}',
  },
  imageUnknown: {
    reason: 'NotFound',
    httpStatus: 404,
    sentence: 'there is no image {name} in namespace {namespace}',
    next: '`macfleet image list` shows those there are, `macfleet image import FILE` adds one',
  },
  waitTimedOut: {
    reason: 'Timeout',
    httpStatus: 504,
    sentence: '{name} is not {wanted} after {seconds} s: {state}',
    next: '`macfleet describe {name}` has more',
  },
  waitFailed: {
    reason: 'InternalError',
    httpStatus: 500,
    sentence: '{name} will not be {wanted}: {state}',
    next: '`macfleet describe {name}` has more',
  },
  sshUnreachable: {
    reason: 'Conflict',
    httpStatus: 409,
    sentence: '{name} can not be reached by SSH: {detail}',
    next: '{advice}',
  },
  someFailed: {
    reason: 'InternalError',
    httpStatus: 500,
    sentence: '{failed} of {total} failed',
    next: '',
  },
  essentialsMissing: {
    reason: 'ServiceUnavailable',
    httpStatus: 503,
    sentence: '{count} things that guests need are missing on this host',
    next: 'Each line marked "missing" above says how to get it',
  },

  // The guardian
  guardianUnavailable: {
    reason: 'ServiceUnavailable',
    httpStatus: 503,
    sentence: 'the guardian does not answer on {path}: {detail}',
    next: 'Under systemd: `systemctl status macfleet-guardian`; else its log lies beside that socket',
  },
  guardianStartFailed: {
    reason: 'ServiceUnavailable',
    httpStatus: 503,
    sentence: 'the guardian did not start: {detail}',
    next: '{path} has more',
  },
  guardianTaken: {
    reason: 'Conflict',
    httpStatus: 409,
    sentence: 'another guardian has {folder}',
    next: 'Stop it, or give this one folders of its own (--run-dir, --data-dir)',
  },
  guardianRefused: {
    reason: 'BadRequest',
    httpStatus: 400,
    sentence: 'the guardian refused {method}: {detail}',
    next: '',
  },
  guardianNameTaken: {
    reason: 'AlreadyExists',
    httpStatus: 409,
    sentence: 'the guardian already has a process {name}, which {state}',
    next: 'End it, and forget how it ended, first',
  },
  guardianProcessNotFound: {
    reason: 'NotFound',
    httpStatus: 404,
    sentence: 'the guardian has no process {name}',
    next: '',
  },
  guardianStaleIdentity: {
    reason: 'Conflict',
    httpStatus: 409,
    sentence: 'process {name} is no longer the one with pid {pid}',
    next: 'List the processes again',
  },
  guardianFenced: {
    reason: 'Conflict',
    httpStatus: 409,
    sentence: '{name} was claimed under a lease of this host that is not alive',
    next: 'It is tried again under the next lease; `macfleet cluster status` says how the store is',
  },
  guardianBusy: {
    reason: 'Conflict',
    httpStatus: 409,
    sentence: 'the guardian still has {count} running processes',
    next: 'End them first, or stop it by force, which kills them',
  },

  // Images
  imageRefused: {
    reason: 'Invalid',
    httpStatus: 422,
    sentence: 'this file is not accepted as an image ({refusal}): {detail}',
    next: '{advice}',
  },
  imageSourceUnreadable: {
    reason: 'BadRequest',
    httpStatus: 400,
    sentence: 'cannot read {path}: {detail}',
    next: '',
  },
  imageInUse: {
    reason: 'Conflict',
    httpStatus: 409,
    sentence: 'image {digest} is in use by {users}',
    next: 'Delete those first',
  },
  imagePinned: {
    reason: 'Conflict',
    httpStatus: 409,
    sentence: 'image {digest} is pinned',
    next: 'Unpin it first',
  },
  imageIndexCorrupt: {
    reason: 'InternalError',
    httpStatus: 500,
    sentence: 'the index of the images in {folder} is damaged: {detail}',
    next: '{advice}',
  },
  sourceFailed: {
    reason: 'ServiceUnavailable',
    httpStatus: 503,
    sentence: '{source}: {detail}',
    next: '',
  },
  referenceInvalid: {
    reason: 'Invalid',
    httpStatus: 422,
    sentence: '"{reference}" does not name an image in a registry: {detail}',
    next: 'Write HOST[:PORT]/PATH[:TAG] or HOST[:PORT]/PATH@sha256:DIGEST',
  },
  registryDenied: {
    reason: 'Forbidden',
    httpStatus: 403,
    sentence: 'registry {registry} refuses access to {what}: {detail}',
    next: 'Check the user name and the password that are given for it, and what they may do',
  },
  registryCredentialsInvalid: {
    reason: 'Invalid',
    httpStatus: 422,
    sentence: 'the credentials for registry {registry} can not be used: {detail}',
    next: 'Give a user name and a password, or a docker configuration that holds them',
  },
  registryImageRefused: {
    reason: 'Invalid',
    httpStatus: 422,
    sentence: '{reference} is not accepted as an image: {detail}',
    next: '',
  },
  registryArchMissing: {
    reason: 'Invalid',
    httpStatus: 422,
    sentence: '{reference} is not there for {wanted}, only for {found}',
    next: 'Use hosts of such an architecture, or an image that is made for {wanted}',
  },
  layerIndexInvalid: {
    reason: 'Invalid',
    httpStatus: 422,
    sentence: 'the index of a layer is not valid: {detail}',
    next: '',
  },
  layerLocationsInvalid: {
    reason: 'Invalid',
    httpStatus: 422,
    sentence: 'the locations of a layer are not valid: {detail}',
    next: '',
  },
  imageManifestInvalid: {
    reason: 'Invalid',
    httpStatus: 422,
    sentence: 'the manifest of an image is not valid: {detail}',
    next: '',
  },
  imageConfigInvalid: {
    reason: 'Invalid',
    httpStatus: 422,
    sentence: 'the config of an image is not valid: {detail}',
    next: '',
  },
  layerIncomplete: {
    reason: 'Conflict',
    httpStatus: 409,
    sentence: '{count} chunks of the layer {layer}, which later layers cover, are not on this host',
    next: 'Pull the image that this one was made from, then push again',
  },
  chunkInvalid: {
    reason: 'Invalid',
    httpStatus: 422,
    sentence: 'a chunk is not what it should be: {detail}',
    next: '',
  },
  imageStalled: {
    reason: 'ServiceUnavailable',
    httpStatus: 503,
    sentence: 'the rest of image {digest} does not come: {detail}',
    next: 'It goes on by itself when a source is back',
  },
  imageFillEnded: {
    reason: 'ServiceUnavailable',
    httpStatus: 503,
    sentence: 'image {digest} is not being filled any more: {detail}',
    next: 'It is taken up again when it is asked for; what came stays',
  },
  snapshotFailed: {
    reason: 'InternalError',
    httpStatus: 500,
    sentence: 'the disk of a guest that runs could not be copied: {detail}',
    next: 'The guest goes on as before; try again, or stop it first',
  },
  commitRefused: {
    reason: 'Conflict',
    httpStatus: 409,
    sentence: 'virtual machine {name} can not be made an image: {detail}',
    next: '{advice}',
  },
  diskFull: {
    reason: 'InsufficientStorage',
    httpStatus: 507,
    sentence: 'the disk that holds {folder} is full: {detail}',
    next: 'Make room there, for example with `macfleet image prune`',
  },
  contentDiffers: {
    reason: 'ServiceUnavailable',
    httpStatus: 502,
    sentence: '{source} sent something else: {detail}',
    next: 'Nothing of it was kept. Look at that source, or name another one',
  },
  wrappedDiskRefused: {
    reason: 'Invalid',
    httpStatus: 422,
    sentence: 'no disk is taken from {source}: {detail}',
    next: 'It has to hold one file, /disk/NAME.qcow2, .raw or .img (docs/IMAGE-SOURCES.md)',
  },

  // Machines on their host
  hostFull: {
    reason: 'ServiceUnavailable',
    httpStatus: 503,
    sentence: 'there is no room on {host}: {shortages}',
    next: 'It starts by itself when others stop; `macfleet top vms` shows who has what',
  },
  hostUnfit: {
    reason: 'ServiceUnavailable',
    httpStatus: 503,
    sentence: '{host} does not take this machine: {reasons}',
    next: 'It starts by itself when that changes; `macfleet describe host {host}` shows the host',
  },
  machineUnsupported: {
    reason: 'ServiceUnavailable',
    httpStatus: 503,
    sentence: '{host} can not start machines of the shape {machine}',
    next: 'Delete it, and create it with `machine: linux`',
  },
  imageUnfit: {
    reason: 'Invalid',
    httpStatus: 422,
    sentence: 'image {name} is made for {made}, and this machine is {wanted}',
    next: 'Create the machine from another image',
  },
  guestRecordDamaged: {
    reason: 'InternalError',
    httpStatus: 500,
    sentence: 'what is known of this guest, {path}, is damaged',
    next: 'Its disk lies beside that file: save what you need, then delete the machine',
  },
  hostDiskFull: {
    reason: 'ServiceUnavailable',
    httpStatus: 503,
    sentence: 'the data folder of {host} is full',
    next: 'It starts by itself when there is room again; `macfleet image prune` makes some',
  },
  execUnavailable: {
    reason: 'ServiceUnavailable',
    httpStatus: 503,
    sentence: 'no command can be run in {name}: {detail}',
    next: '`macfleet console {name}` shows what it is doing',
  },
  imageNotReady: {
    reason: 'ServiceUnavailable',
    httpStatus: 503,
    sentence: 'image {name} is not ready: {phase}',
    next: 'It starts by itself when the image is there',
  },
  imageDiffers: {
    reason: 'Conflict',
    httpStatus: 409,
    sentence: 'image {name} is {wanted}, what was sent is {found}',
    next: 'Send the same file, or import it under another name',
  },
  libraryMissing: {
    reason: 'Invalid',
    httpStatus: 422,
    sentence: 'this host has no library of images',
    next: 'Name its folder as imageLibrary in the configuration of every host',
  },
  imageNotHere: {
    reason: 'ServiceUnavailable',
    httpStatus: 503,
    sentence: 'the content of image {name} is not whole on this host; it is on {hosts}',
    next: 'Ask a host that holds it, or place a copy here: macfleet image place {name}',
  },
  imageContentMissing: {
    reason: 'ServiceUnavailable',
    httpStatus: 503,
    sentence: 'the content {digest} of image {name} is not on this host',
    next: 'Import the image again',
  },

  // The fleet: membership and certificates
  transitionRunning: {
    reason: 'Conflict',
    httpStatus: 409,
    sentence: '{kind} is under way',
    next: '`macfleet cluster status` shows how far it is',
  },
  lastHostOfFleet: {
    reason: 'BadRequest',
    httpStatus: 400,
    sentence: '{host} is the last host of its fleet that lives: with it everything would be gone',
    next: 'Make a backup and remove the data folder, if that is meant',
  },
  addressUnknown: {
    reason: 'BadRequest',
    httpStatus: 400,
    sentence: 'the address of this host for the others is not known: {detail}',
    next: 'Set fleet.address in macfleetd.yaml',
  },
  notInFleet: {
    reason: 'BadRequest',
    httpStatus: 400,
    sentence: 'this is a single host, and {what} needs a fleet',
    next: '`macfleet cluster init` makes a fleet of it, `cluster join` lets it join one',
  },
  inFleetAlready: {
    reason: 'Conflict',
    httpStatus: 409,
    sentence: '{host} is a host of a fleet already',
    next: '`macfleet cluster leave` takes it out of it',
  },
  hostHasMachines: {
    reason: 'Conflict',
    httpStatus: 409,
    sentence: '{host} has {count} machines of its own: {names}',
    next: 'Delete them first; what they are would be lost',
  },
  tokenMalformed: {
    reason: 'BadRequest',
    httpStatus: 400,
    sentence: 'this is no join token: {detail}',
    next: 'Copy the whole line that `macfleet cluster token create` printed',
  },
  tokenRefused: {
    reason: 'Forbidden',
    httpStatus: 403,
    sentence: 'the fleet takes no join token {id}: it was revoked, or was never valid here',
    next: 'Make a new one on a host of the fleet: `macfleet cluster token create`',
  },
  tokenExpired: {
    reason: 'Forbidden',
    httpStatus: 403,
    sentence: 'join token {id} has expired at {at}',
    next: 'Make a new one on a host of the fleet: `macfleet cluster token create --ttl 1h`',
  },
  tokenUsedUp: {
    reason: 'Forbidden',
    httpStatus: 403,
    sentence: 'join token {id} was used as often as it may be ({uses})',
    next: 'Make a new one on a host of the fleet: `macfleet cluster token create --uses 10`',
  },
  tokenOfOtherFleet: {
    reason: 'Forbidden',
    httpStatus: 403,
    sentence: 'the host at {address} is not of the fleet that made this join token',
    next: 'Use a token of that fleet; tokens from before `macfleet cluster rotate-ca` are void',
  },
  joinAttempts: {
    reason: 'TooManyRequests',
    httpStatus: 429,
    sentence: 'too many attempts to join from {address} have failed',
    next: 'Try again in a minute, with a token that is valid',
  },
  joinRefused: {
    reason: 'Forbidden',
    httpStatus: 403,
    sentence: 'the request is not proven: {detail}',
    next: 'Start the daemon again; if that does not help, join anew with a new token',
  },
  fleetUnreachable: {
    reason: 'ServiceUnavailable',
    httpStatus: 503,
    sentence: 'no host of the fleet could be asked: {detail}',
    next: 'See that one of them runs, and that its peer port can be reached from here',
  },
  hostNameTaken: {
    reason: 'Conflict',
    httpStatus: 409,
    sentence: 'the fleet has another host with the name {name}',
    next: 'Give this one another name (hostName), or first `macfleet host remove {name}` there',
  },
  hostAddressTaken: {
    reason: 'Conflict',
    httpStatus: 409,
    sentence: 'the address {address} belongs to the host {name} of the fleet',
    next: 'Set fleet.address or the ports, or first `macfleet host remove {name}` there',
  },
  hostKeyTaken: {
    reason: 'Conflict',
    httpStatus: 409,
    sentence: 'this host is in the fleet already, as {name} {detail}',
    next: 'First `macfleet host remove {name}` there, or give this data folder up',
  },
  clockSkew: {
    reason: 'BadRequest',
    httpStatus: 400,
    sentence: 'the clocks differ: here it is {here}, on the host at {address} it is {there}',
    next: 'Set the one that is wrong (NTP keeps it right), then try again',
  },
  notMember: {
    reason: 'Forbidden',
    httpStatus: 403,
    sentence: '{name} is no member of the fleet: {detail}',
    next: 'It comes in with a new join token: `macfleet cluster join TOKEN`',
  },
  certificateRefused: {
    reason: 'Unauthorized',
    httpStatus: 401,
    sentence: 'the certificate is refused: {detail}',
    next: 'Only hosts of this fleet are let in here; they have certificates from it',
  },
  noSigner: {
    reason: 'ServiceUnavailable',
    httpStatus: 503,
    sentence: 'no host that can sign certificates could be asked: {detail}',
    next: 'See that a host with a voter of etcd runs; `macfleet cluster status` names them',
  },
  authorityKeysRefused: {
    reason: 'Forbidden',
    httpStatus: 403,
    sentence: "{name} is not to have the authorities' keys: it is no voter",
    next: '',
  },
  fleetFolderDamaged: {
    reason: 'InternalError',
    httpStatus: 500,
    sentence: "this host's place in the fleet, {path}, is damaged: {detail}",
    next: 'Nothing was changed. Put the file back, or remove the host there and join anew',
  },
  adoptNeeded: {
    reason: 'Conflict',
    httpStatus: 409,
    sentence: 'the data folder {folder} was made on another machine',
    next: 'If that machine never runs it again: `macfleetd --adopt`; else use a new data folder',
  },
  alreadyInFleet: {
    reason: 'Conflict',
    httpStatus: 409,
    sentence: 'this host is in the fleet {fleetId} already, as {name}',
    next: 'Leave it first: `macfleet cluster leave`',
  },
  rotationUnderWay: {
    reason: 'Conflict',
    httpStatus: 409,
    sentence: 'authorities are being changed already; waiting for {hosts}',
    next: 'Start these hosts, or `macfleet host remove` those that do not come back',
  },

  // The fleet: etcd
  etcdLearnerBehind: {
    reason: 'ServiceUnavailable',
    httpStatus: 503,
    sentence: 'member {member} of etcd has not caught up with its leader yet',
    next: 'It becomes a voter by itself when it has',
  },
  etcdLearnerBusy: {
    reason: 'TooManyRequests',
    httpStatus: 429,
    sentence: 'etcd takes one new member at a time, and another one is on its way',
    next: 'The next is added when that one votes, or was removed',
  },
  etcdMemberExists: {
    reason: 'AlreadyExists',
    httpStatus: 409,
    sentence: 'etcd has a member with the URL {url} already',
    next: '',
  },
  etcdMemberUnknown: {
    reason: 'NotFound',
    httpStatus: 404,
    sentence: 'etcd has no member {member}',
    next: '',
  },
  etcdUnhealthy: {
    reason: 'ServiceUnavailable',
    httpStatus: 503,
    sentence: 'etcd does not change its members now: {detail}',
    next: 'It is tried again; `macfleet cluster status` shows which voters are missing',
  },
  etcdRefused: {
    reason: 'InternalError',
    httpStatus: 500,
    sentence: 'etcd refused {method}: {detail}',
    next: '',
  },
  etcdValueDamaged: {
    reason: 'InternalError',
    httpStatus: 500,
    sentence: 'what etcd has under {key} is not of this fleet',
    next: 'Somebody else wrote to it: delete that key, or go back to a backup',
  },
  etcdSnapshotTorn: {
    reason: 'ServiceUnavailable',
    httpStatus: 503,
    sentence: 'the snapshot from {endpoint} is not whole: {detail}',
    next: 'Nothing was kept of it; take another one',
  },
  storeMoved: {
    reason: 'Conflict',
    httpStatus: 409,
    sentence: 'the store in {folder} was moved to the fleet {fleetId}, which goes on without it',
    next: 'Start the host as a member of that fleet, or give it a new data folder',
  },
  storeNotEmpty: {
    reason: 'Conflict',
    httpStatus: 409,
    sentence: 'etcd has keys already: {detail}',
    next: 'Nothing was copied; begin anew with an empty one',
  },
  storeCopyDiffers: {
    reason: 'InternalError',
    httpStatus: 500,
    sentence: 'what was copied to etcd is not what was read: {detail}',
    next: 'Nothing has changed on this host; try again',
  },
  backupRefused: {
    reason: 'Invalid',
    httpStatus: 422,
    sentence: '{path} can not be restored: {detail}',
    next: '{advice}',
  },

  // The fleet: peers and gossip
  peerUnknown: {
    reason: 'NotFound',
    httpStatus: 404,
    sentence: 'host {host} is not a member of this fleet',
    next: '`macfleet cluster status` lists the members',
  },
  peerUnreachable: {
    reason: 'ServiceUnavailable',
    httpStatus: 503,
    sentence: 'host {host} can not be reached: {detail}',
    next: 'See whether it runs, and whether its gossip port is open to this host',
  },
  gossipAddressUnusable: {
    reason: 'InternalError',
    httpStatus: 500,
    sentence: 'the address {address} for gossip can not be listened on: {detail}',
    next: 'Stop what uses it, or set another one in the configuration',
  },
  peerFailed: {
    reason: 'ServiceUnavailable',
    httpStatus: 503,
    sentence: 'host {host} could not answer: {detail}',
    next: 'Its log says more',
  },

  // The fleet: leader and placement
  placementChanged: {
    reason: 'Conflict',
    httpStatus: 409,
    sentence: 'machine {uid} is not for {host} to start any more',
    next: 'The leader gives it to a host anew',
  },
  hostLeaseMissing: {
    reason: 'ServiceUnavailable',
    httpStatus: 503,
    sentence: '{host} has no lease in the fleet at the moment and starts nothing',
    next: 'It goes on by itself; `macfleet cluster status` says whether decisions can be made',
  },
  hostInTouch: {
    reason: 'Conflict',
    httpStatus: 409,
    sentence: '{host} is in touch with the fleet: its lease lives',
    next: 'Drain it, or power it off; once it is silent it can be forgotten',
  },

  // The fleet: leases and fencing

  // A fleet on one machine
  devNeedsRoot: {
    reason: 'Forbidden',
    httpStatus: 403,
    sentence: 'hosts on one machine need root: each is a network namespace',
    next: 'Run it with sudo',
  },
  devFailed: {
    reason: 'InternalError',
    httpStatus: 500,
    sentence: 'the fleet on this machine failed: {detail}',
    next: '',
  },
} as const satisfies Record<string, ErrorRow>
