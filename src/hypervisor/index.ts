/**
 * Machines and their disks.
 *
 * A *machine configuration* says in platform-neutral words what a virtual machine is. A *hypervisor* starts such a
 * machine or attaches to one that somebody else started, and gives a *running machine*: its disks, each a
 * *chain* of image files whose last one, the *tip*, takes the guest's writes; a *cut*, which puts a fresh tip on
 * every disk at one instant and so seals the old ones; a *commit*, which folds a sealed layer into the file below
 * it while the guest runs on.
 *
 * *Disk images* are chains that nobody writes: sealed layers, layers of a stopped machine, layers of a replica.
 * They are read by a process of their own, never by the one that runs the guest, so that a transfer takes nothing
 * from the guest but the disk's bandwidth, and a machine that dies takes no transfer along.
 *
 * Relied on: QEMU 7.2 or newer with its tools. What an implementation must provide stands with the interfaces and
 * is tested by one contract suite for all of them (`test/contract/`). The facts about QEMU that this rests on are
 * in docs/qemu.md.
 *
 * Formats are never probed and headers never followed: every command names driver, file and backing file.
 */
export * from './configuration.ts';
export { HYPERVISOR_ERRORS } from './errors.ts';
export * from './firmware.ts';
export { connectGuest, type Guest } from './guest.ts';
export * from './hypervisor.ts';
export * from './images.ts';
export * from './lease-guard.ts';
export { FIRMWARE_VARIABLES_DEVICE } from './qemu/block-graph.ts';
export { runPaths } from './qemu/command-line.ts';
export { QemuLeaseGuards } from './qemu/lease-guards.ts';
export { placeOfNewDisk } from './qemu/pci-plan.ts';
export { QemuHypervisor } from './qemu/qemu-hypervisor.ts';
export { QemuImages } from './qemu/qemu-images.ts';
export { endRun, processesOfRun } from './qemu/run-processes.ts';
export * from './startability.ts';
