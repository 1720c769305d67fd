#!/bin/sh
# Make sure that MPI and what compiles Horovod are installed.
#
#     ./install_mpi.sh
#
# Any MPI on the path is used. What is missing is installed if this runs as root on Debian or Ubuntu;
# elsewhere one line says what to install.
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
    # The package lists may be stale or absent. If they can't be renewed, the present ones may do.
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
