#!/bin/sh
# Run a command on a bare machine: in a clone of this repository, in a minimal Debian 12 that has nothing
# but what README asks for. It needs root on Debian or Ubuntu; elsewhere one line says so.
#
#     tests/bare_root.sh tf2                 # make demo
#     tests/bare_root.sh tf1                 # the same with this machine's Python 3.7
#     tests/bare_root.sh tf2 make test       # any other command
#
# The Debian is made once, in BARE_ROOT (default /var/cache/darknet-face-bare), and copied for each run.
# The clone has what is committed. Mounts and processes are in namespaces, which end with this script.
set -eu
cd "$(dirname "$0")/.."
base=${BARE_ROOT:-/var/cache/darknet-face-bare}
packages=ca-certificates,git,make,python3,python3-venv

skip() {
    echo "NOT RUN on a bare machine: $1"
    exit 0
}

install_debootstrap() {
    apt-get update -qq && apt-get install -qq -y --no-install-recommends debootstrap
}

make_base() {
    [ ! -e "$base/made" ] || return 0
    rm -rf "$base"
    mkdir -p "$base"
    command -v debootstrap > /dev/null || install_debootstrap > "$base/log" 2>&1 ||
        skip "debootstrap can't be installed: see $base/log"
    debootstrap --variant=minbase --include=$packages bookworm "$base/root" > "$base/log" 2>&1 ||
        skip "debootstrap failed: see $base/log"
    touch "$base/made"
}

# What pip and git need to reach the network from this machine, where it has something of its own.
copy_network_settings() {
    for file in /etc/hosts /etc/resolv.conf /etc/pip.conf /etc/ssl/certs/ca-certificates.crt; do
        [ ! -e $file ] || cp $file "$root$file"
    done
}

run_inside() {
    root=$1 python37=$2
    shift 2
    for folder in /proc /sys /dev; do
        mount --rbind $folder "$root$folder"
    done
    if [ -n "$python37" ]; then
        mkdir -p "$root$python37"
        mount --bind "$python37" "$root$python37"
        set -- env PYTHON37="$python37/bin/python3.7" "$@"
    fi
    exec env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 PIP_DEFAULT_TIMEOUT=180 \
        chroot "$root" sh -c 'cd /srv/darknet-face && exec "$@"' sh "$@"
}

if [ "${1:-}" = --inside ]; then
    shift
    run_inside "$@"
fi

runtime=${1:-tf2}
[ $# -eq 0 ] || shift
[ $# -gt 0 ] || set -- make demo
[ "$(id -u)" = 0 ] || skip "it needs root"
command -v apt-get > /dev/null || skip "this is not Debian or Ubuntu"
unshare --mount true 2> /dev/null || skip "mounts are not permitted here"
python37=
if [ "$runtime" = tf1 ]; then
    python37=$(./make_environment.sh find tf1)
    [ -n "$python37" ] || skip "this machine has no Python 3.7"
    python37=$("$python37" -c 'import sys; print(sys.base_prefix)')
fi
make_base
root=$(mktemp -d "$base/run.XXXXXX")
child=
# The end of unshare is the end of everything in its namespaces.
trap '[ -z "$child" ] || kill -KILL $child 2> /dev/null || true; rm -rf --one-file-system "$root"' EXIT
trap 'exit 130' INT TERM
cp -a "$base/root/." "$root"
copy_network_settings
git clone --quiet --depth 1 "file://$PWD" "$root/srv/darknet-face"
unshare --mount --pid --fork --kill-child --mount-proc "$0" --inside "$root" "$python37" "$@" &
child=$!
wait $child
