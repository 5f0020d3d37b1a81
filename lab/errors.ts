import { type ErrorCatalogue, failuresOf } from '../src/lib/errors.ts';

export const LAB_ERRORS = {
  LAB_KERNEL_UNAVAILABLE: {
    kind: 'environment',
    retry: 'later',
    remedy:
      'Run `apt-get update` as root and try again, or unpack a Debian linux-image-*-cloud-amd64 package with `dpkg -x` and name that directory.',
  },
  LAB_KERNEL_UNSUITABLE: {
    kind: 'environment',
    retry: 'never',
    remedy: 'Use the kernel of Debian 12 (linux-image-6.1.0-*-cloud-amd64), for which the lab guest is made.',
  },
  LAB_PACKAGES_UNAVAILABLE: {
    kind: 'environment',
    retry: 'later',
    remedy:
      'Run `apt-get update` as root and try again. Without a network, unpack the same packages of this Debian with `dpkg-deb -x` into the directory that the message names.',
  },
  LAB_LIBRARY_MISSING: {
    kind: 'environment',
    retry: 'never',
    remedy:
      'Install the Debian package of this library. If the program is one of those unpacked below `.cache/lab`, delete its directory there instead: it is fetched again with what this host lacks now.',
  },
  LAB_MACHINE_FAILED: {
    kind: 'environment',
    retry: 'later',
    remedy: "Read QEMU's words in the message and the serial log in the machine's directory.",
  },
  LAB_TIMEOUT: {
    kind: 'timeout',
    retry: 'later',
    remedy: "Read the serial log in the machine's directory; a busy host may simply need longer.",
  },
  LAB_PORT_CLOSED: {
    kind: 'unavailable',
    retry: 'reconnect',
    remedy: 'The machine has ended or never listened there: start it and connect again.',
  },
} as const satisfies ErrorCatalogue;

export const labFailure = failuresOf(LAB_ERRORS);
