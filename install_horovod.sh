#!/bin/sh
# Make sure that MPI is installed, then compile Horovod against an environment's TensorFlow.
#
#     ./install_horovod.sh .venv-tf2/bin/python
#
# Any MPI on the path is used. What is missing is installed if this runs as root on Debian or Ubuntu;
# elsewhere one line says what to install. Horovod's operations for XLA are left out: they need headers
# that TensorFlow 2's wheel does not bring, and nothing here is compiled by XLA.
set -eu

python=$1
packages="libopenmpi-dev openmpi-bin cmake g++ make"

missing() {
    for command in mpirun mpicxx cmake g++ make; do
        command -v "$command" > /dev/null || printf '%s ' "$command"
    done
}

if [ -n "$(missing)" ] && [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
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

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

export HOROVOD_WITH_TENSORFLOW=1 HOROVOD_WITH_MPI=1 HOROVOD_WITHOUT_GLOO=1
export HOROVOD_WITHOUT_PYTORCH=1 HOROVOD_WITHOUT_MXNET=1

"$python" -m pip download --quiet --no-deps --no-build-isolation --no-binary horovod \
    --dest "$folder" -r requirements-distributed.txt
tar -xzf "$folder"/horovod-*.tar.gz -C "$folder"
rm "$folder"/horovod-*.tar.gz
source=$(echo "$folder"/horovod-*)
sed -i.before '/xla_mpi_ops\.cc/d' "$source/horovod/tensorflow/CMakeLists.txt"
echo "compiling Horovod: this takes some minutes"
"$python" -m pip install --quiet --no-build-isolation --no-cache-dir --force-reinstall --no-deps \
    "$folder"/*
