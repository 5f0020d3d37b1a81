/**
 * The lab: a small Linux guest made for judging disaster recovery, and plain machines to run it in. Used by the
 * demonstration, the platform tests and the benches; no part of the product imports it.
 *
 * Nouns. The *lab guest* is a pair of disks that boot by themselves in about three seconds without KVM. Its
 * *ledger* is an endless row of numbered, checksummed records, each durable before the next is written, striped
 * over raw areas of both disks: a copy of the disks holds a prefix of that row exactly when it was taken at one
 * instant and lost nothing (`checkLedgerDisks`). The *ledger port* tells the host which record is durable
 * already, so that a copy made later can be held to it. The guest's *application* moves money in an SQLite
 * database and is held by a freeze hook while its file system is frozen.
 *
 * Promises. Guests are built without root and without mounting, cached by what they are made from. A machine is
 * waited for by QEMU's own events, never by sleeping; it leaves QMP, agent and ledger sockets free for others.
 *
 * Relies on Debian's packages busybox-static, qemu-guest-agent, qemu-system-x86, qemu-utils, sqlite3, tcc,
 * libc6-dev, syslinux, syslinux-common, mtools, dosfstools, fdisk, e2fsprogs and cpio, on `apt-get download` for a
 * kernel and, for the disks with databases alone, PostgreSQL and MariaDB,
 * for the one with snapshots btrfs-progs, and on `src/lib`.
 */

export { type BtrfsDisks, buildBtrfsDisks } from './btrfs-disks.ts';
export {
  buildLabGuest,
  copyLabGuest,
  LAB_CACHE,
  type LabGuest,
  LEDGER_AREA_BYTES,
  LEDGER_AREAS,
} from './build-guest.ts';
export { type AreaReader, checkLedger, checkLedgerDisks, type LedgerCheck, partitionArea } from './ledger.ts';
export { LedgerPort, type LedgerReport } from './ledger-port.ts';
export { buildMariadbDisk } from './mariadb-disk.ts';
export { buildPostgresDisk } from './postgres-disk.ts';
export { type LabDisk, LabMachine, type LabMachineOptions, startLabMachine } from './qemu.ts';
