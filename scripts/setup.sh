#!/bin/sh
# usage: setup.sh
#
# Installs what the tests, the demo and the benches need: Debian packages and npm dependencies. It looks for
# the programs and files themselves, not for a note that it ran before, so it may be called before every
# command: with nothing to do it prints nothing and takes a few hundredths of a second. Two runs at once do
# not disturb each other: the second waits and then finds everything done.
#
# Tried on Debian 12 (x86_64) with Node 20 and npm. Ubuntu 24.04 has packages of the same names but for the last one: untested.
# Exit status: 0 all is there; 8 this machine lacks something that this script could not install.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
cd "$root"
lack=8
node_wanted=24.12

# what proves that it is there | Debian package | what it is for. A word without a slash is a program.
needs='
qemu-system-x86_64                |qemu-system-x86    |runs the machines
/usr/share/seabios/bios-256k.bin  |seabios            |firmware of the machines
qemu-storage-daemon               |qemu-system-common |a second NBD server for the tests
qemu-img                          |qemu-utils         |creates and checks disk images
setpriv                           |util-linux         |ends the tools of a process that is killed
qemu-nbd                          |qemu-utils         |serves layers of disks
qemu-ga                           |qemu-guest-agent   |runs inside the lab guest
nbdkit                            |nbdkit             |NBD servers that misbehave on demand
nbdcopy                           |libnbd-bin         |a second opinion on our NBD exports
busybox                           |busybox-static     |user land of the lab guest
/usr/share/OVMF/OVMF_CODE_4M.fd   |ovmf               |UEFI firmware of the machines
swtpm                             |swtpm              |emulates the TPMs of the machines
syslinux                          |syslinux           |boot loader of the lab guest
extlinux                          |extlinux           |boot loader of the lab guest
/usr/lib/syslinux/mbr/mbr.bin     |syslinux-common    |boot sector of the lab guest
/usr/lib/SYSLINUX.EFI/efi64/syslinux.efi |syslinux-efi |boot loader of the lab guest under UEFI
mcopy                             |mtools             |fills the boot partition of the lab guest
mkfs.fat                          |dosfstools         |makes the boot partition of the lab guest
sfdisk                            |fdisk              |partitions the disks of the lab guest
mkfs.ext4                         |e2fsprogs          |makes the file systems of the lab guest
debugfs                           |e2fsprogs          |reads guest files without mounting
cpio                              |cpio               |packs the initial ram disk of the lab guest
xz                                |xz-utils           |unpacks the kernel modules of the lab guest
tcc                               |tcc                |compiles the small C programs of the lab guest
/usr/include/stdio.h              |libc6-dev          |headers for those C programs
sqlite3                           |sqlite3            |the database inside the lab guest
strace                            |strace             |makes system calls fail in crash tests
ip                                |iproute2           |isolated networks for test failover
tcpdump                           |tcpdump            |what machines say on a bridge, for the tests
openssl                           |openssl            |a second opinion on certificates
git                               |git                |names the commit in reports
chromium-headless-shell           |chromium-headless-shell |prints reports of failovers as PDF
'

say() { printf 'setup: %s\n' "$*" >&2; }

give_up() {
  say "$*"
  exit "$lack"
}

present() {
  case $1 in
    /*) [ -e "$1" ] ;;
    # Debian keeps mkfs and its like in sbin, which is not on everybody's path.
    *) command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || [ -x "/sbin/$1" ] ;;
  esac
}

# Prints "proof|package|purpose" of every need that is not met.
missing_needs() {
  printf '%s\n' "$needs" | while IFS='|' read -r proof package purpose; do
    # Unquoted on purpose: the columns are padded with blanks.
    # shellcheck disable=SC2086
    set -- $proof
    [ "$#" -eq 0 ] && continue
    present "$1" && continue
    # shellcheck disable=SC2086
    set -- "$1" $package
    printf '%s|%s|%s\n' "$1" "$2" "$purpose"
  done
}

# True when the version $1 (such as v24.21.0) is at least $node_wanted.
recent_enough() {
  version=${1#v}
  major=${version%%.*}
  rest=${version#*.}
  minor=${rest%%.*}
  case $major$minor in '' | *[!0-9]*) return 1 ;; esac
  [ "$major" -gt "${node_wanted%%.*}" ] ||
    { [ "$major" -eq "${node_wanted%%.*}" ] && [ "$minor" -ge "${node_wanted#*.}" ]; }
}

# The Node that commands will run under: the one from the dependencies, else the one on the path.
node_found() {
  PATH=$root/node_modules/.bin:$PATH node --version 2>/dev/null || printf 'none'
}

# What node_modules must have been made from: the lock file, on this kind of machine.
wanted_stamp() {
  printf '%s %s %s\n' "$(sha256sum <package-lock.json | cut -d' ' -f1)" "$(uname -s)" "$(uname -m)"
}

dependencies_match() {
  [ -f node_modules/.warmsite-lock ] && [ "$(cat node_modules/.warmsite-lock)" = "$(wanted_stamp)" ]
}

complete() {
  [ -z "$(missing_needs)" ] && dependencies_match && recent_enough "$(node_found)"
}

check_machine() {
  [ "$(uname -s)" = Linux ] || give_up "Warmsite is developed on Linux; this is $(uname -s)."
  case $(uname -m) in
    x86_64) ;;
    aarch64) say "aarch64 is untested: the lab guest is an x86_64 machine and its boot loader may be missing." ;;
    *) give_up "x86_64 is needed; this is $(uname -m)." ;;
  esac
}

install_system_tools() {
  missing=$(missing_needs)
  [ -n "$missing" ] || return 0
  say 'these tools are missing:'
  printf '%s\n' "$missing" | while IFS='|' read -r proof package purpose; do
    printf '  %-34s %-20s %s\n' "$proof" "$package" "$purpose" >&2
  done
  packages=$(printf '%s\n' "$missing" | cut -d'|' -f2 | sort -u | tr '\n' ' ')
  command -v apt-get >/dev/null 2>&1 ||
    give_up "install them with your system's package manager (middle column: the Debian packages), then try again."
  as_root=
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null 2>&1 ||
      give_up "neither root nor sudo here; as root run: apt-get install --no-install-recommends $packages"
    as_root='sudo'
  fi
  say "installing $packages"
  # Unquoted on purpose: both hold words. `env` because sudo drops the environment.
  # shellcheck disable=SC2086
  {
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get update -q >.cache/apt.log 2>&1 &&
      $as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -q -y --no-install-recommends $packages >>.cache/apt.log 2>&1
  } || {
    tail -n 20 .cache/apt.log >&2
    give_up "apt-get failed (whole output: .cache/apt.log); install by hand: $packages"
  }
  still=$(missing_needs | cut -d'|' -f1 | tr '\n' ' ')
  [ -z "$still" ] || give_up "installed, and yet not found: $still"
}

install_dependencies() {
  dependencies_match && return 0
  command -v npm >/dev/null 2>&1 || give_up 'npm is missing: install Node 20 or newer with npm.'
  say 'installing npm dependencies'
  rm -f node_modules/.warmsite-lock
  # Without node_modules/.bin on the path: npm must not run under the Node that it is about to replace.
  outer_path=$(printf '%s' "$PATH" | tr ':' '\n' | grep -v '/node_modules/\.bin$' | paste -s -d: -)
  PATH=$outer_path npm ci --ignore-scripts --loglevel=error >.cache/npm.log 2>&1 || {
    tail -n 20 .cache/npm.log >&2
    give_up 'npm ci failed (whole output: .cache/npm.log).'
  }
  # Written last: an interrupted installation has no stamp and is done again.
  wanted_stamp >node_modules/.warmsite-lock
}

complete && exit 0

check_machine
mkdir -p .cache
if command -v flock >/dev/null 2>&1; then
  exec 9>.cache/setup.lock
  flock -n 9 || {
    say 'another run is installing; waiting for it'
    flock 9
  }
fi
install_system_tools
install_dependencies
found=$(node_found)
recent_enough "$found" || give_up "Node $node_wanted or newer is needed; found $found."
