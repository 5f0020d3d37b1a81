import { checkMachineConfiguration, type MachineConfiguration } from './configuration.ts';
import { HYPERVISOR_ERRORS } from './errors.ts';
import { type Firmware, firmwareFor } from './firmware.ts';

/** What a host has for machines, asked of its hypervisor. */
export interface HostOffer {
  readonly accelerator: 'kvm' | 'tcg';
  /** By every name that it goes by. */
  readonly machineTypes: ReadonlyMap<string, { readonly cpusMax: number }>;
  /** By name; the features of each that guests would not get here. */
  readonly cpuModels: ReadonlyMap<string, { readonly missingFeatures: readonly string[] }>;
  readonly firmware: readonly Firmware[];
  /** Whether it emulates TPMs. */
  readonly hasTpm: boolean;
  readonly memoryBytes: number;
  /** Digests of the media that were asked for and are here. */
  readonly media: ReadonlySet<string>;
}

/** What stands in the way of a machine at a host, or makes it another one there. */
export interface StartFinding {
  /** It would not start; otherwise it starts and is not the same. */
  readonly prevents: boolean;
  readonly code: keyof typeof HYPERVISOR_ERRORS;
  readonly found: string;
  readonly remedy: string;
}

/** What a machine would find at a host, ahead of its start; nothing if all is there. Pure. */
export function startFindings(described: unknown, offer: HostOffer): readonly StartFinding[] {
  let configuration: MachineConfiguration;
  try {
    configuration = checkMachineConfiguration(described);
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    return [finding('MACHINE_CONFIGURATION_INVALID', error.message)];
  }
  return [
    ...machineTypeFindings(configuration, offer),
    ...cpuFindings(configuration, offer),
    ...firmwareFindings(configuration, offer),
    ...tpmFindings(configuration, offer),
    ...memoryFindings(configuration, offer),
    ...cdFindings(configuration, offer),
  ];
}

function machineTypeFindings(
  { machineVersion, chipset, cpus }: MachineConfiguration,
  { machineTypes }: HostOffer,
): StartFinding[] {
  const wanted = machineVersion ?? chipset;
  const type = machineTypes.get(wanted);
  if (!type) return [finding('MACHINE_TYPE_MISSING', `QEMU here has no machine type ${wanted}`)];
  if (cpus <= type.cpusMax) return [];
  const said = `it has ${cpus} processors, and ${wanted} takes ${type.cpusMax} here`;
  return [finding('MACHINE_TYPE_MISSING', said)];
}

function cpuFindings(
  { cpuModel }: MachineConfiguration,
  { cpuModels, accelerator }: HostOffer,
): StartFinding[] {
  const [wanted] = (cpuModel ?? '').split(',');
  if (wanted === undefined || wanted === '') return [];
  if (wanted === 'host' && accelerator === 'tcg') {
    const said = 'it has the processor of its host, and is given a translated one here';
    return [finding('MACHINE_CPU_DIFFERS', said, { prevents: false })];
  }
  const model = cpuModels.get(wanted);
  if (!model) return [finding('MACHINE_CPU_MISSING', `QEMU here has no processor model ${wanted}`)];
  if (model.missingFeatures.length === 0) return [];
  const said = `its processor ${wanted} has no ${model.missingFeatures.join(', ')} here`;
  return [finding('MACHINE_CPU_DIFFERS', said, { prevents: false })];
}

function firmwareFindings(configuration: MachineConfiguration, { firmware }: HostOffer): StartFinding[] {
  if (configuration.firmware === 'bios') return [];
  const chosen = firmwareFor(configuration, firmware);
  return 'reason' in chosen ? [finding('MACHINE_FIRMWARE_MISSING', chosen.reason)] : [];
}

function tpmFindings({ tpm }: MachineConfiguration, { hasTpm }: HostOffer): StartFinding[] {
  return tpm && !hasTpm
    ? [finding('MACHINE_TPM_MISSING', 'it has a TPM, and swtpm is not installed here')]
    : [];
}

function memoryFindings({ memoryBytes }: MachineConfiguration, offer: HostOffer): StartFinding[] {
  if (memoryBytes <= offer.memoryBytes) return [];
  const said = `it has ${mebibytes(memoryBytes)} MiB of memory, this host ${mebibytes(offer.memoryBytes)} MiB`;
  return [finding('MACHINE_MEMORY_SHORT', said)];
}

/** A machine that boots from nothing else than a CD does not start without it. */
function cdFindings({ cds = [], disks, nics }: MachineConfiguration, { media }: HostOffer): StartFinding[] {
  const others = [...disks, ...nics].some(({ bootIndex }) => bootIndex !== undefined);
  return cds.flatMap(({ medium, bootIndex }) => {
    if (!medium || media.has(medium.sha256)) return [];
    const prevents = bootIndex !== undefined && !others;
    const without = prevents ? 'it boots from that alone' : 'its drive would be empty';
    const found = `${medium.path} (SHA-256 ${medium.sha256.slice(0, 16)}…) is not here, and ${without}`;
    return [finding('MACHINE_CD_MISSING', found, { prevents })];
  });
}

function mebibytes(bytes: number): number {
  return Math.floor(bytes / 2 ** 20);
}

function finding(
  code: StartFinding['code'],
  found: string,
  { prevents = true }: { readonly prevents?: boolean } = {},
): StartFinding {
  return { prevents, code, found, remedy: HYPERVISOR_ERRORS[code].remedy };
}
