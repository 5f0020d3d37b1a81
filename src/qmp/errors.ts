import { type ErrorCatalogue, failuresOf } from '../lib/errors.ts';

export const QMP_ERRORS = {
  QMP_UNREACHABLE: {
    kind: 'unavailable',
    retry: 'later',
    remedy: 'Check that the machine runs and that the path names its QMP socket.',
  },
  QMP_NO_GREETING: {
    kind: 'unavailable',
    retry: 'later',
    remedy:
      'QEMU serves one client per monitor socket: find who holds this one (`ss -xp`), or give the machine a second `-qmp` socket.',
  },
  QMP_PROTOCOL: {
    kind: 'protocol',
    retry: 'reconnect',
    remedy: 'Check that the path names a QMP socket of QEMU 7.2 or newer; if it does, report what it said.',
  },
  QMP_DISCONNECTED: {
    kind: 'unavailable',
    retry: 'reconnect',
    remedy: 'Check whether the machine still runs; its log tells why QEMU ended.',
  },
  QMP_TIMEOUT: {
    kind: 'timeout',
    retry: 'later',
    remedy:
      'QEMU is busy or blocked on storage: look at the storage of the machine. The command may still run.',
  },
  QMP_EVENT_TIMEOUT: {
    kind: 'timeout',
    retry: 'later',
    remedy: 'Ask QEMU for the state that the event would have announced, then decide.',
  },
  QMP_COMMAND_FAILED: {
    kind: 'refused',
    retry: 'never',
    remedy: 'Read the description that QEMU gave; nothing but what it says has changed.',
  },
  QMP_AGENT_UNREACHABLE: {
    kind: 'unavailable',
    retry: 'later',
    remedy: 'Check that the machine runs and has a channel `org.qemu.guest_agent.0` at this socket.',
  },
  QMP_AGENT_NO_ANSWER: {
    kind: 'timeout',
    retry: 'later',
    remedy:
      'Start qemu-guest-agent in the guest, and close other clients of its socket: QEMU serves one at a time.',
  },
  QMP_AGENT_TIMEOUT: {
    kind: 'timeout',
    retry: 'later',
    remedy: 'The guest is busy or hangs; the command may still be carried out when it wakes up.',
  },
  QMP_AGENT_DISCONNECTED: {
    kind: 'unavailable',
    retry: 'reconnect',
    remedy: 'Check whether the machine still runs.',
  },
  QMP_AGENT_PROTOCOL: {
    kind: 'protocol',
    retry: 'later',
    remedy: 'Update qemu-guest-agent in the guest; if it is current, do not trust this guest.',
  },
  QMP_AGENT_REPLY_TOO_LONG: {
    kind: 'protocol',
    retry: 'never',
    remedy: 'Let the command print less, or let it write into a file and read the file in parts.',
  },
  QMP_AGENT_COMMAND_FAILED: {
    kind: 'refused',
    retry: 'never',
    remedy:
      'Read the description that the guest agent gave; the command may be disabled in its configuration.',
  },
  QMP_AGENT_FILE_TOO_LARGE: {
    kind: 'refused',
    retry: 'never',
    remedy: 'Raise the limit if the guest is trusted with that much memory, or choose a smaller file.',
  },
  QMP_FREEZE_LIMIT_INVALID: {
    kind: 'input',
    retry: 'never',
    remedy: 'Choose a freeze limit between 1 and 10000 ms: Windows itself holds no longer than 10 seconds.',
  },
  QMP_FREEZE_FAILED: {
    kind: 'refused',
    retry: 'later',
    remedy: 'Look for what the guest agent says; take a crash-consistent copy meanwhile.',
  },
  QMP_FREEZE_TIMEOUT: {
    kind: 'timeout',
    retry: 'later',
    remedy:
      'The guest could not flush in the time allowed: freeze when it writes less, or allow more time. The guest is thawed in the background.',
  },
  QMP_FREEZE_GUARD_LOST: {
    kind: 'environment',
    retry: 'later',
    remedy: 'Look in the kernel log for what ended the freeze guard (memory?); the copy is crash-consistent.',
  },
  QMP_PAUSE_GUARD_LOST: {
    kind: 'environment',
    retry: 'later',
    remedy:
      'Look in the kernel log for what ended the pause guard (memory?). The machines of a group are copied one by one; ask once more for the end of a protection.',
  },
  QMP_FREEZE_THAW_UNCONFIRMED: {
    kind: 'timeout',
    retry: 'later',
    remedy:
      'The guest may still be frozen: send `guest-fsfreeze-thaw` to its agent or run `fsfreeze -u` in it; a reset frees it too.',
  },
} as const satisfies ErrorCatalogue;

export const qmpFailure = failuresOf(QMP_ERRORS);
