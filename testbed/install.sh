#!/usr/bin/env bash
# Installs what demo, tests and benchmarks need: system packages, a Python venv, the Milvus server from its wheel.
# Everything of ours goes to one folder, $MIGRANS_TESTBED (default: ~/.cache/migrans/testbed). Run it as often as you
# like: when nothing has changed it returns at once.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
home=${MIGRANS_TESTBED:-${XDG_CACHE_HOME:-$HOME/.cache}/migrans/testbed}
say() { printf 'testbed: %s\n' "$*"; }

# --- system packages -----------------------------------------------------------------------------------------------
# etcd runs beside each Milvus; the others are what the builds of RocksDB and of the queues' clients and the venv need.
packages=(etcd-server libclang-dev clang cmake pkg-config gcc g++ make python3-venv libssl-dev zlib1g-dev protobuf-compiler)

missing_packages() {
    if command -v dpkg-query >/dev/null; then
        local have
        have=$(dpkg-query -W -f='${db:Status-Status} ${Package}\n' "${packages[@]}" 2>/dev/null || true)
        for p in "${packages[@]}"; do
            # Debian calls it pkgconf since trixie; pkg-config stays as a name that pulls it in.
            grep -qx "installed $p" <<<"$have" || { [ "$p" = pkg-config ] && command -v pkg-config >/dev/null; } || echo "$p"
        done
    else
        local c
        for c in etcd:etcd-server clang:clang cmake:cmake pkg-config:pkg-config gcc:gcc g++:g++ make:make; do
            command -v "${c%%:*}" >/dev/null || echo "${c##*:}"
        done
        python3 -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
        # There is no command to look for: only the library that bindgen opens.
        compgen -G '/usr/lib*/libclang.so*' >/dev/null || compgen -G '/usr/lib*/llvm*/lib*/libclang.so*' >/dev/null \
            || compgen -G '/usr/lib/*/libclang*.so*' >/dev/null || echo libclang-dev
    fi
}

mapfile -t missing < <(missing_packages)
if [ ${#missing[@]} -gt 0 ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "installing ${missing[*]}"
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -qq >/dev/null
        apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
    else
        say "these system packages are missing: ${missing[*]}" >&2
        say "install them, then run this again:" >&2
        echo "    sudo apt-get install -y ${missing[*]}" >&2
        exit 1
    fi
fi

# --- the venv and the server ---------------------------------------------------------------------------------------
mkdir -p "$home"
exec 9>"$home/.lock"
flock 9

want=$(cat "$here/requirements.txt" "${BASH_SOURCE[0]}" | sha256sum | cut -d' ' -f1)
if [ "$(cat "$home/stamp" 2>/dev/null || true)" = "$want" ] && [ -x "$home/venv/bin/python" ] && [ -x "$home/bin/milvus" ]; then
    exit 0
fi
rm -f "$home/stamp"

say "creating $home/venv"
if ! "$home/venv/bin/python" -c 'import pip' 2>/dev/null; then
    rm -rf "$home/venv"
    python3 -m venv "$home/venv"
fi
"$home/venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$here/requirements.txt"

say "unpacking the Milvus server"
"$home/venv/bin/python" - "$home" <<'P'
import lzma, os, pathlib, shutil, sys
from importlib import metadata

home = pathlib.Path(sys.argv[1])
fresh = home / "bin.new"
shutil.rmtree(fresh, ignore_errors=True)
fresh.mkdir()
# The files are LZMA-alone streams without an end marker: the xz tool refuses some of them, Python reads all.
packed = [f.locate() for f in metadata.files("milvus") if f.name.endswith(".lzma")]
for f in map(pathlib.Path, packed):
    out = fresh / f.name.removesuffix(".lzma")
    with lzma.open(f) as src, open(out, "wb") as dst:
        shutil.copyfileobj(src, dst, 1 << 20)
    out.chmod(0o755)
if not (fresh / "milvus").exists():
    sys.exit("testbed: the milvus wheel has no server inside")
shutil.rmtree(home / "bin", ignore_errors=True)
fresh.rename(home / "bin")
P

echo "$want" > "$home/stamp"
say "ready in $home"
