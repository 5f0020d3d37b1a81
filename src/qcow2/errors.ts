import { type ErrorCatalogue, failuresOf } from '../lib/errors.ts';

export const QCOW2_ERRORS = {
  QCOW2_BAD_MAGIC: {
    kind: 'corrupt',
    retry: 'never',
    remedy:
      'The file is not a finished qcow2 image: check that the path and the declared disk format are right.',
  },
  QCOW2_VERSION_OLD: {
    kind: 'refused',
    retry: 'never',
    remedy: 'Upgrade the image with `qemu-img amend -f qcow2 -o compat=1.1 IMAGE` while no machine uses it.',
  },
  QCOW2_VERSION_UNKNOWN: {
    kind: 'refused',
    retry: 'never',
    remedy: 'The image was made by newer software: convert it with `qemu-img convert -O qcow2`.',
  },
  QCOW2_FEATURE_UNKNOWN: {
    kind: 'refused',
    retry: 'never',
    remedy:
      'The image uses a feature this version does not know: convert it with `qemu-img convert -O qcow2`.',
  },
  QCOW2_DATA_FILE: {
    kind: 'refused',
    retry: 'never',
    remedy:
      'Images with an external data file are not supported: convert it with `qemu-img convert -O qcow2`.',
  },
  QCOW2_MARKED_CORRUPT: {
    kind: 'corrupt',
    retry: 'never',
    remedy:
      'QEMU marked this image as damaged: copy it, then run `qemu-img check -r all` on the copy and judge the result.',
  },
  QCOW2_HEADER_INVALID: {
    kind: 'corrupt',
    retry: 'never',
    remedy:
      'Run `qemu-img check -f qcow2 IMAGE`; if the image comes from a guest or a stranger, do not open it.',
  },
  QCOW2_BACKING_REFUSED: {
    kind: 'refused',
    retry: 'never',
    remedy:
      'Only a plain file name may be a backing file: rebase the image with `qemu-img rebase -u -F FORMAT -b FILE`.',
  },
  QCOW2_SHAPE_UNSUPPORTED: {
    kind: 'input',
    retry: 'never',
    remedy: 'A layer needs a size that is a multiple of 512 bytes and at most 64 TiB.',
  },
  QCOW2_RESUME_MISMATCH: {
    kind: 'corrupt',
    retry: 'never',
    remedy:
      'The half-written layer does not hold what was recorded as durable: remove it and receive it again.',
  },
  QCOW2_WRITER_FAILED: {
    kind: 'environment',
    retry: 'later',
    remedy: 'An earlier write of this layer failed: resume the layer from its last durable operation.',
  },
} as const satisfies ErrorCatalogue;

export const qcow2Failure = failuresOf(QCOW2_ERRORS);
