import Type from 'typebox';
import { Value } from 'typebox/value';
import { hypervisorFailure } from './errors.ts';

/**
 * Where a device sits as its guest finds it, in hexadecimal: slot and function on the first PCI bus; behind a root port, the place
 * of the port comes first.
 */
const PciPlace = Type.String({ pattern: '^([01][0-9a-f]\\.[0-7]/)?[01][0-9a-f]\\.[0-7]$' });

/** In which turn firmware tries to boot from it; where no device has one, the disks are tried in their order. */
const BootIndex = Type.Optional(Type.Integer({ minimum: 1, maximum: 4096 }));

/** What lies in a CD drive: a file, which is not copied. */
const Medium = Type.Object({
  path: Type.String({ pattern: '^/', maxLength: 4096 }),
  sizeBytes: Type.Integer({ minimum: 0, maximum: 2 ** 50 }),
  sha256: Type.String({ pattern: '^[0-9a-f]{64}$' }),
});
export type Medium = Type.Static<typeof Medium>;

/**
 * A machine in words that no hypervisor owns: what must be the same at the recovery site. Paths, bridges and
 * sockets are not part of it; a site maps those. It travels inside every point statement.
 */
export const MachineConfiguration = Type.Object({
  name: Type.String({ minLength: 1, maxLength: 64, pattern: '^[A-Za-z0-9][A-Za-z0-9._-]*$' }),
  uuid: Type.String({ pattern: '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$' }),
  architecture: Type.Literal('x86_64'),
  /** Chipset family; the exact versioned machine type, when known, is `machineVersion`. */
  chipset: Type.Union([Type.Literal('q35'), Type.Literal('pc')]),
  machineVersion: Type.Optional(Type.String({ maxLength: 64, pattern: '^[A-Za-z0-9._-]+$' })),
  firmware: Type.Union([Type.Literal('bios'), Type.Literal('uefi')]),
  /** Its UEFI keeps the variables in memory that only the firmware may write, as Secure Boot needs. */
  secureFirmware: Type.Optional(Type.Boolean()),
  /** A TPM 2.0; what it holds is no part of this. */
  tpm: Type.Optional(Type.Object({ model: Type.Union([Type.Literal('tpm-tis'), Type.Literal('tpm-crb')]) })),
  cpuModel: Type.Optional(Type.String({ maxLength: 256, pattern: '^[A-Za-z0-9._+=,-]+$' })),
  cpus: Type.Integer({ minimum: 1, maximum: 1024 }),
  memoryBytes: Type.Integer({ minimum: 16 * 1024 * 1024, maximum: 2 ** 46 }),
  disks: Type.Array(
    Type.Object({
      diskId: Type.String({ minLength: 1, maxLength: 24, pattern: '^[a-z0-9][a-z0-9-]*$' }),
      bus: Type.Union([
        Type.Literal('virtio-blk'),
        Type.Literal('virtio-scsi'),
        Type.Literal('ide'),
        Type.Literal('sata'),
        /** The flash memory with the UEFI variables: a disk to everything but the guest. */
        Type.Literal('pflash'),
      ]),
      sizeBytes: Type.Integer({ minimum: 512, maximum: 2 ** 50 }),
      serial: Type.Optional(Type.String({ maxLength: 20, pattern: '^[A-Za-z0-9._-]*$' })),
      bootIndex: BootIndex,
      /** Of a virtio disk; of `virtio-scsi` that of its controller. */
      pciPlace: Type.Optional(PciPlace),
    }),
    { minItems: 1, maxItems: 64 },
  ),
  nics: Type.Array(
    Type.Object({
      nicId: Type.String({ minLength: 1, maxLength: 24, pattern: '^[a-z0-9][a-z0-9-]*$' }),
      model: Type.Union([Type.Literal('virtio-net-pci'), Type.Literal('e1000'), Type.Literal('e1000e')]),
      mac: Type.String({ pattern: '^[0-9a-f]{2}(:[0-9a-f]{2}){5}$' }),
      /** Name of the network at the protected site; mapped to one of the recovery site. */
      network: Type.String({ maxLength: 64 }),
      bootIndex: BootIndex,
      pciPlace: Type.Optional(PciPlace),
    }),
    { maxItems: 16 },
  ),
  /** CD drives, each with its medium if it has one that could be read. */
  cds: Type.Optional(
    Type.Array(
      Type.Object({
        cdId: Type.String({ minLength: 1, maxLength: 24, pattern: '^[a-z0-9][a-z0-9-]*$' }),
        bus: Type.Union([Type.Literal('virtio-scsi'), Type.Literal('ide'), Type.Literal('sata')]),
        bootIndex: BootIndex,
        medium: Type.Optional(Medium),
      }),
      { minItems: 1, maxItems: 8 },
    ),
  ),
  /** Places of the PCI Express root ports, with and without a device: guests number the buses behind them. */
  rootPorts: Type.Optional(Type.Array(Type.String({ pattern: '^[01][0-9a-f]\\.[0-7]$' }), { maxItems: 248 })),
  guestAgent: Type.Boolean(),
});

export type MachineConfiguration = Type.Static<typeof MachineConfiguration>;
export type DiskConfiguration = MachineConfiguration['disks'][number];
export type CdConfiguration = NonNullable<MachineConfiguration['cds']>[number];
export type NicConfiguration = MachineConfiguration['nics'][number];

/** Throws MACHINE_CONFIGURATION_INVALID naming the first wrong field. */
export function checkMachineConfiguration(value: unknown): MachineConfiguration {
  for (const error of Value.Errors(MachineConfiguration, value)) {
    const field = error.instancePath.slice(1).replaceAll('/', '.') || 'the description';
    throw hypervisorFailure('MACHINE_CONFIGURATION_INVALID', `${field}: ${error.message}`, {
      context: { field },
    });
  }
  const configuration = value as MachineConfiguration;
  if (!hasUniqueIds(configuration)) {
    throw hypervisorFailure(
      'MACHINE_CONFIGURATION_INVALID',
      'disk ids, NIC ids and MAC addresses must differ',
    );
  }
  const flash = configuration.disks.filter(({ bus }) => bus === 'pflash');
  if (flash.length > 1 || (flash.length === 1 && configuration.firmware !== 'uefi')) {
    throw hypervisorFailure(
      'MACHINE_CONFIGURATION_INVALID',
      'only a machine with UEFI firmware has UEFI variables, and has them once',
    );
  }
  return configuration;
}

/** Everything that lies in CD drives of the machine. */
export function mediaOf({ cds = [] }: Pick<MachineConfiguration, 'cds'>): Medium[] {
  return cds.flatMap(({ medium }) => medium ?? []);
}

/** The disk that holds the UEFI variables. */
export function firmwareVariables({ disks }: MachineConfiguration): DiskConfiguration | undefined {
  return disks.find(({ bus }) => bus === 'pflash');
}

function hasUniqueIds({ disks, nics, cds = [] }: MachineConfiguration): boolean {
  const unique = (values: string[]) => new Set(values).size === values.length;
  return (
    unique(disks.map((disk) => disk.diskId)) &&
    unique(nics.map((nic) => nic.nicId)) &&
    unique([...disks.map(({ diskId }) => diskId), ...cds.map(({ cdId }) => cdId)]) &&
    unique(nics.map((nic) => nic.mac))
  );
}
