import { hypervisorFailure } from '../errors.ts';
import type { MachineDisk } from '../hypervisor.ts';
import type { ImageFile } from '../images.ts';

/**
 * Reading QEMU's description of its block graph (`query-block`, `query-named-block-nodes`; QAPI schema
 * block-core.json). Pure: replies in, disks out. Replies come from a process that a guest may have taken
 * over, so every field is checked.
 */

type Reply = Readonly<Record<string, unknown>>;

interface NodeFile {
  readonly driver: string;
  readonly path: string;
}

/** The two flash memories of a PC, as `query-block` names them (QEMU, hw/i386/pc_sysfw.c). */
export const FIRMWARE_VARIABLES_DEVICE = '/machine/system.flash1';
const FIRMWARE_CODE_DEVICE = '/machine/system.flash0';

/** A chain longer than this is not read further: QEMU itself fails far below 1,500. */
const CHAIN_FILES_MAX = 1024;

/** Writable hard disks of the machine; CD-ROM drives, floppies and empty drives are left out. */
export function disksOf(queryBlock: unknown): MachineDisk[] {
  return listOf(queryBlock, 'query-block')
    .filter((device) => isRecord(device.inserted) && device.removable !== true)
    .filter((device) => (device.inserted as Reply).ro !== true)
    .map(diskOf);
}

function diskOf(device: Reply): MachineDisk {
  const inserted = device.inserted as Reply;
  const deviceName = textOf(device.qdev) || textOf(device.device);
  const tipNode = textOf(inserted['node-name']);
  let unsupported: string | undefined;
  if (deviceName === FIRMWARE_CODE_DEVICE) {
    unsupported =
      'it holds the code of the firmware besides its variables; give the variables a flash of their own';
  }
  const image = isRecord(inserted.image) ? inserted.image : {};
  const chain: ImageFile[] = [];
  for (let at: unknown = image; isRecord(at); at = at['backing-image']) {
    if (chain.length >= CHAIN_FILES_MAX) throw unexpected('a chain of more files than QEMU can open');
    const file = fileOf(textOf(at.filename), textOf(at.format));
    if (file === undefined || (file.driver !== 'qcow2' && file.driver !== 'raw')) {
      unsupported ??= `${textOf(at.filename) || 'a node without a file'} (${textOf(at.format)}) is neither a qcow2 nor a raw file`;
      break;
    }
    chain.unshift({ path: file.path, format: file.driver });
  }
  const sizeBytes = image['virtual-size'];
  if (typeof sizeBytes !== 'number' || !Number.isSafeInteger(sizeBytes))
    throw unexpected('a disk without a size');
  if (deviceName === '' || tipNode === '') throw unexpected('a disk without device or node name');
  return { deviceName, tipNode, chain, sizeBytes, ...(unsupported ? { unsupported } : {}) };
}

/** A device that a guest has had an I/O error on. */
export interface FailedDevice {
  readonly deviceName: string;
  readonly tipNode: string;
  /** The first of its errors was a lack of space. */
  readonly isFull: boolean;
}

/** Devices with an I/O error that would stop the guest, now or at any time before: QEMU does not forget it when it goes on. */
export function failedDevicesOf(queryBlock: unknown): FailedDevice[] {
  return listOf(queryBlock, 'query-block')
    .filter((device) => isRecord(device.inserted))
    .filter(({ 'io-status': status }) => status === 'nospace' || status === 'failed')
    .map((device) => ({
      deviceName: textOf(device.qdev) || textOf(device.device),
      tipNode: textOf((device.inserted as Reply)['node-name']),
      isFull: device['io-status'] === 'nospace',
    }));
}

/**
 * The file behind a node's file name, which QEMU gives as a plain path or, where options differ from what the
 * header says, as `json:{…}`.
 */
function fileOf(filename: string, format: string): NodeFile | undefined {
  if (!filename.startsWith('json:')) {
    return filename.startsWith('/') ? { driver: format, path: filename } : undefined;
  }
  let options: unknown;
  try {
    options = JSON.parse(filename.slice('json:'.length));
  } catch {
    return undefined;
  }
  if (!isRecord(options) || !isRecord(options.file)) return undefined;
  const { file } = options;
  if (!isRecord(file) || file.driver !== 'file') return undefined;
  const path = textOf(file.filename);
  return path.startsWith('/') ? { driver: textOf(options.driver) || format, path } : undefined;
}

/** The node of a format driver that has this file open, by `query-named-block-nodes`. */
export function nodeNameOf(queryNamedBlockNodes: unknown, image: ImageFile): string | undefined {
  for (const node of listOf(queryNamedBlockNodes, 'query-named-block-nodes')) {
    if (textOf(node.drv) !== image.format) continue;
    const file = fileOf(textOf(node.file), textOf(node.drv));
    if (file?.path === image.path) return textOf(node['node-name']) || undefined;
  }
  return undefined;
}

/** The nodes that have this file open itself, below those of its format, by `query-named-block-nodes`. */
export function fileNodesOf(queryNamedBlockNodes: unknown, path: string): string[] {
  return listOf(queryNamedBlockNodes, 'query-named-block-nodes')
    .filter((node) => node.drv === 'file' && node.file === path)
    .map((node) => textOf(node['node-name']))
    .filter((name) => name !== '');
}

/** The sizes of disks, as guests see them, by the names of their nodes; by `query-named-block-nodes`. */
export function nodeSizesOf(queryNamedBlockNodes: unknown): Map<string, number> {
  return new Map(
    listOf(queryNamedBlockNodes, 'query-named-block-nodes').flatMap((node): [string, number][] => {
      const sizeBytes = isRecord(node.image) ? node.image['virtual-size'] : undefined;
      return typeof sizeBytes === 'number' ? [[textOf(node['node-name']), sizeBytes]] : [];
    }),
  );
}

function listOf(reply: unknown, command: string): Reply[] {
  if (!Array.isArray(reply) || !reply.every(isRecord))
    throw unexpected(`the answer to ${command} is not a list`);
  return reply;
}

function isRecord(value: unknown): value is Reply {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function textOf(value: unknown): string {
  return typeof value === 'string' ? value : '';
}

function unexpected(what: string) {
  return hypervisorFailure('QEMU_REPLY_UNEXPECTED', `QEMU described ${what}`);
}
