import { type ErrorCatalogue, failuresOf } from '../lib/errors.ts';

export const HYPERVISOR_ERRORS = {
  MACHINE_NOT_RUNNING: {
    kind: 'unavailable',
    retry: 'later',
    remedy: 'Start the machine, or check the path of its QMP socket.',
  },
  MACHINE_START_FAILED: {
    kind: 'environment',
    retry: 'never',
    remedy: 'Read what QEMU said; `warmsite doctor` tells what this host lacks.',
  },
  MACHINE_END_FAILED: {
    kind: 'environment',
    retry: 'later',
    remedy:
      'The process waits for storage that does not answer: see to that; the clean-up can then be repeated.',
  },
  MACHINE_CONFIGURATION_INVALID: {
    kind: 'input',
    retry: 'never',
    remedy: 'Correct the named field of the machine description.',
  },
  MACHINE_FIRMWARE_MISSING: {
    kind: 'environment',
    retry: 'later',
    remedy:
      'Install UEFI firmware that describes itself below /usr/share/qemu/firmware (Debian and Ubuntu: package ovmf), as the message says.',
  },
  MACHINE_TPM_MISSING: {
    kind: 'environment',
    retry: 'later',
    remedy: 'Install the emulator of TPMs here (Debian and Ubuntu: package swtpm).',
  },
  MACHINE_CD_MISSING: {
    kind: 'environment',
    retry: 'later',
    remedy:
      'Copy the file to the same path here; its drive is empty otherwise. If the guest does not need it any more, eject it there and add the machine anew.',
  },
  MACHINE_TYPE_MISSING: {
    kind: 'environment',
    retry: 'later',
    remedy:
      'Install the QEMU of the other site here or a newer one, or give the machine a type that both have (`qemu-system-x86_64 -machine help`).',
  },
  MACHINE_CPU_MISSING: {
    kind: 'environment',
    retry: 'later',
    remedy:
      'Install the QEMU of the other site here or a newer one, or give the machine a processor model that both have (`qemu-system-x86_64 -cpu help`).',
  },
  MACHINE_CPU_DIFFERS: {
    kind: 'environment',
    retry: 'later',
    remedy:
      'The guest starts with fewer features, and programs that were made for these may fail: rehearse it with `warmsite failover test`, or give the machine a model that both hosts have in full.',
  },
  MACHINE_MEMORY_SHORT: {
    kind: 'environment',
    retry: 'later',
    remedy: 'Give this host more memory, or the machine less.',
  },
  DISK_UNSUPPORTED: {
    kind: 'refused',
    retry: 'never',
    remedy: 'Give the disk a writable qcow2 or raw file, or leave it out of the protection.',
  },
  CUT_FAILED: {
    kind: 'unavailable',
    retry: 'later',
    remedy:
      'No disk was cut and the machine runs on; the next copy is tried on schedule. Read what QEMU said.',
  },
  PAUSE_FAILED: {
    kind: 'unavailable',
    retry: 'later',
    remedy:
      'The machines run on and were copied one by one. Read what QEMU said of the one that did not stop.',
  },
  PAUSE_TOO_LONG: {
    kind: 'timeout',
    retry: 'later',
    remedy:
      'The machines run on and were copied one by one. Look at their storage, or give the group a longer limit.',
  },
  COMMIT_FAILED: {
    kind: 'unavailable',
    retry: 'later',
    remedy:
      'The layer stays where it is and the commit is repeated; nothing is lost. Check the health of the disk.',
  },
  IMAGE_UNREADABLE: {
    kind: 'corrupt',
    retry: 'never',
    remedy: 'Keep the file as it is and run `warmsite point verify` to learn what is affected.',
  },
  CONSOLE_PICTURE_FAILED: {
    kind: 'unavailable',
    retry: 'later',
    remedy: 'The machine needs a display device (`-vga std` or virtio-vga) to give a console picture.',
  },
  MEDIUM_SILENT: {
    kind: 'timeout',
    retry: 'later',
    remedy: 'See whether the file system of the medium answers; until then its drive comes up empty.',
  },
  MACHINE_LEASE_UNGUARDED: {
    kind: 'unavailable',
    retry: 'later',
    remedy:
      'A guard is started again by itself. A machine that was started by an older version has no monitor for it: shut it down and start it again.',
  },
  QEMU_REPLY_UNEXPECTED: {
    kind: 'protocol',
    retry: 'never',
    remedy: 'Check with `warmsite doctor` that this QEMU version is supported.',
  },
} as const satisfies ErrorCatalogue;

export const hypervisorFailure = failuresOf(HYPERVISOR_ERRORS);
