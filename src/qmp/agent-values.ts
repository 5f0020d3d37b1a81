import { agentNonsense } from './agent-channel.ts';
import { type Fields, isFields } from './messages.ts';

/**
 * Decoders for what a guest says. Everything wrong is QMP_AGENT_PROTOCOL; sizes are bounded by the length of
 * a line. Strings stay as they came: whoever shows them treats them as text of a stranger.
 * Source of the shapes: QEMU, `qga/qapi-schema.json`.
 */

export function fieldsOf(value: unknown, what: string): Fields {
  if (!isFields(value)) throw agentNonsense(`${what} is not an object`);
  return value;
}

function listOf(value: unknown, what: string): readonly unknown[] {
  if (!Array.isArray(value)) throw agentNonsense(`${what} is not a list`);
  return value;
}

/** A whole number that is not negative: a count, a size, a handle, a process id. */
export function wholeOf(value: unknown, what: string): number {
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 0) {
    throw agentNonsense(`${what} is not a whole number`);
  }
  return value;
}

export function textOf(value: unknown, what: string): string {
  if (typeof value !== 'string') throw agentNonsense(`${what} is not a text`);
  return value;
}

export function flagOf(value: unknown, what: string): boolean {
  if (typeof value !== 'boolean') throw agentNonsense(`${what} is neither true nor false`);
  return value;
}

function optional<T>(
  value: unknown,
  what: string,
  decode: (value: unknown, what: string) => T,
): T | undefined {
  return value === undefined ? undefined : decode(value, what);
}

export interface GuestInterface {
  readonly name: string;
  /** Six bytes in hexadecimal with colons, as the guest writes them. */
  readonly hardwareAddress: string | undefined;
  readonly addresses: readonly {
    readonly address: string;
    readonly family: 'ipv4' | 'ipv6';
    /** Length of the network part in bits. */
    readonly prefix: number;
  }[];
}

export function interfacesOf(value: unknown): GuestInterface[] {
  return listOf(value, 'the list of interfaces').map((entry) => {
    const fields = fieldsOf(entry, 'an interface');
    const addresses = optional(fields['ip-addresses'], 'the list of addresses', listOf) ?? [];
    return {
      name: textOf(fields.name, 'the name of an interface'),
      hardwareAddress: optional(fields['hardware-address'], 'a hardware address', textOf),
      addresses: addresses.map((item) => {
        const address = fieldsOf(item, 'an address');
        const family = address['ip-address-type'];
        if (family !== 'ipv4' && family !== 'ipv6') throw agentNonsense('an address is of an unknown family');
        return {
          address: textOf(address['ip-address'], 'an address'),
          family,
          prefix: wholeOf(address.prefix, 'a prefix length'),
        };
      }),
    };
  });
}

/** What the guest says about its operating system (os-release on Linux); each part may be missing. */
export interface GuestOsInfo {
  /** Short name such as `debian` or `mswindows`. */
  readonly id: string | undefined;
  readonly name: string | undefined;
  readonly prettyName: string | undefined;
  readonly versionId: string | undefined;
  readonly kernelRelease: string | undefined;
  readonly machine: string | undefined;
}

export function osInfoOf(value: unknown): GuestOsInfo {
  const fields = fieldsOf(value, 'the information about the system');
  const text = (key: string) => optional(fields[key], key, textOf);
  return {
    id: text('id'),
    name: text('name'),
    prettyName: text('pretty-name'),
    versionId: text('version-id'),
    kernelRelease: text('kernel-release'),
    machine: text('machine'),
  };
}

export interface GuestFileSystem {
  /** Name of the block device in the guest, such as `vda1`. */
  readonly device: string;
  readonly mountPoint: string;
  readonly type: string;
  readonly usedBytes: number | undefined;
  readonly totalBytes: number | undefined;
  /** The disks that carry it, as far as the guest knows them. */
  readonly disks: readonly { readonly device: string | undefined; readonly serial: string | undefined }[];
}

export function fileSystemsOf(value: unknown): GuestFileSystem[] {
  return listOf(value, 'the list of file systems').map((entry) => {
    const fields = fieldsOf(entry, 'a file system');
    return {
      device: textOf(fields.name, 'the name of a file system'),
      mountPoint: textOf(fields.mountpoint, 'a mount point'),
      type: textOf(fields.type, 'the type of a file system'),
      usedBytes: optional(fields['used-bytes'], 'the used bytes', wholeOf),
      totalBytes: optional(fields['total-bytes'], 'the total bytes', wholeOf),
      disks: listOf(fields.disk ?? [], 'the list of disks').map((item) => {
        const disk = fieldsOf(item, 'a disk');
        return {
          device: optional(disk.dev, 'the device of a disk', textOf),
          serial: optional(disk.serial, 'the serial number of a disk', textOf),
        };
      }),
    };
  });
}

/** The state of a program started in the guest. */
export interface ExecStatus {
  readonly exited: boolean;
  readonly exitCode: number;
  readonly stdout: Buffer;
  readonly stderr: Buffer;
  /** The agent itself has cut the output (at 16 MiB). */
  readonly cut: boolean;
}

export function execStatusOf(value: unknown): ExecStatus {
  const fields = fieldsOf(value, 'the state of a program');
  const bytes = (key: string) => Buffer.from(optional(fields[key], key, textOf) ?? '', 'base64');
  const signal = optional(fields.signal, 'a signal', wholeOf);
  return {
    exited: flagOf(fields.exited, 'the end of a program'),
    // As shells report it: 128 and the number of the signal.
    exitCode: signal === undefined ? exitCodeOf(fields.exitcode) : 128 + signal,
    stdout: bytes('out-data'),
    stderr: bytes('err-data'),
    cut: [fields['out-truncated'], fields['err-truncated']].includes(true),
  };
}

function exitCodeOf(value: unknown): number {
  if (value === undefined) return 0;
  // Exit codes of Windows are 32 bits wide and may come with a sign.
  if (typeof value !== 'number' || !Number.isSafeInteger(value))
    throw agentNonsense('an exit code is no number');
  return value;
}
