import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import Type, { type Static } from 'typebox';
import { Value } from 'typebox/value';
import { systemCodeOf } from '../../lib/errors.ts';
import type { Firmware } from '../firmware.ts';
import type { ImageFile } from '../images.ts';
import { sizeOf } from './image-size.ts';

/** Where packages and administrators describe firmware; a file of the later directory takes the place of its namesake. */
const DIRECTORIES = ['/usr/share/qemu/firmware', '/etc/qemu/firmware'] as const;

const Image = Type.Object({
  filename: Type.String({ pattern: '^/' }),
  format: Type.Union([Type.Literal('raw'), Type.Literal('qcow2')]),
});

/** What of a descriptor matters here (QEMU, docs/interop/firmware.json): UEFI in flash, its variables in a file of their own. */
const Descriptor = Type.Object({
  'interface-types': Type.Array(Type.String()),
  mapping: Type.Object({
    device: Type.Literal('flash'),
    executable: Image,
    'nvram-template': Image,
  }),
  targets: Type.Array(
    Type.Object({ architecture: Type.String(), machines: Type.Array(Type.String({ maxLength: 64 })) }),
  ),
  features: Type.Array(Type.String()),
});

/** The UEFI firmware of this host for x86_64, in the order of precedence. What is described and not there is left out. */
export async function describedFirmware(
  directories: readonly string[] = DIRECTORIES,
): Promise<readonly Firmware[]> {
  const byName = new Map<string, string>();
  for (const directory of directories) {
    for (const name of await namesIn(directory)) byName.set(name, join(directory, name));
  }
  const found: Firmware[] = [];
  for (const [, path] of [...byName].sort(([one], [other]) => (one < other ? -1 : 1))) {
    const firmware = await firmwareIn(path);
    if (firmware) found.push(firmware);
  }
  return found;
}

async function namesIn(directory: string): Promise<string[]> {
  try {
    return (await readdir(directory)).filter((name) => name.endsWith('.json'));
  } catch (error) {
    if (systemCodeOf(error) === 'ENOENT') return [];
    throw error;
  }
}

async function firmwareIn(path: string): Promise<Firmware | undefined> {
  const text = await readFile(path, 'utf8');
  // An administrator hides a descriptor of a package behind an empty one.
  if (text === '') return undefined;
  let described: unknown;
  try {
    described = JSON.parse(text);
  } catch {
    // It describes nothing. What others describe counts all the same, and most machines need none of it.
    return undefined;
  }
  if (!Value.Check(Descriptor, described) || !described['interface-types'].includes('uefi')) return undefined;
  const { mapping, targets, features } = described;
  const code = imageOf(mapping.executable);
  const template = imageOf(mapping['nvram-template']);
  const machines = targets
    .filter(({ architecture }) => architecture === 'x86_64')
    .flatMap((target) => target.machines);
  const variablesBytes = await sizeOf(template);
  const isThere = machines.length > 0 && (await sizeOf(code)) !== undefined;
  if (!isThere || variablesBytes === undefined) return undefined;
  return { descriptor: path, code, template, variablesBytes, machines, features };
}

function imageOf({ filename, format }: Static<typeof Image>): ImageFile {
  return { path: filename, format };
}
