#!/bin/sh
# usage: with-setup.sh COMMAND [ARGUMENT…]
#
# Makes sure that everything the project needs is installed, then becomes COMMAND with the project's own
# programs first on the path, so that `node` is the Node 24 that came with the dependencies. Run from npm
# scripts, whose working directory is the repository.
set -eu

scripts=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
sh "$scripts/setup.sh"
# sbin last: mkfs and sfdisk are there, and Debian leaves it out of the path of everybody but root.
PATH=$(dirname -- "$scripts")/node_modules/.bin:$PATH:/usr/sbin:/sbin
export PATH
exec "$@"
