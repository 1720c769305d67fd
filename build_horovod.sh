#!/bin/sh
# Compile Horovod, with MPI, against the TensorFlow that is installed in an environment.
#
#     ./build_horovod.sh .venv-tf2/bin/python
#
# Its operations for XLA are left out: they need headers that TensorFlow 2's wheel does not bring, and
# nothing here is compiled by XLA.
set -eu

python=$1
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
