#!/bin/sh
# Make sure that there is an MPI and what Horovod is compiled with.
#
#     ./install_mpi.sh
#
# Whatever MPI is on the path is used. Where something is missing it is installed, if this is root
# on Debian or Ubuntu; else one line says what to install.
set -eu

packages="libopenmpi-dev openmpi-bin cmake g++ make"

missing() {
    for command in mpirun mpicxx cmake g++ make; do
        command -v "$command" > /dev/null || printf '%s ' "$command"
    done
}

[ -n "$(missing)" ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
    echo "installing $packages"
    # The lists may be stale or absent; where they can't be renewed, the present ones may do.
    apt-get update -qq || true
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $packages \
        > /dev/null || true
fi
if [ -n "$(missing)" ]; then
    echo "error: Horovod can't be built without these commands: $(missing)- install them ($packages \
on Debian and Ubuntu, open-mpi and cmake with Homebrew, or your cluster's MPI module), then run \
make distributed again" >&2
    exit 2
fi
