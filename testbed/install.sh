#!/usr/bin/env bash
# Installs what build, demo, tests and benchmarks need: system packages, a Python venv, the Milvus server from its wheel,
# Kafka and Pulsar from Maven's central repository. Everything of ours goes to one folder, $MIGRANS_TESTBED (default:
# ~/.cache/migrans/testbed). Run it as often as you like: each part has a stamp, and when nothing has changed it returns
# at once.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
home=${MIGRANS_TESTBED:-${XDG_CACHE_HOME:-$HOME/.cache}/migrans/testbed}
say() { printf 'testbed: %s\n' "$*"; }

# --- system packages -----------------------------------------------------------------------------------------------
# etcd runs beside each Milvus, maven fetches the brokers.
# The rest is what the builds of RocksDB, of the Kafka client and of the protocol need, and the venv.
packages=(etcd-server maven libclang-dev clang cmake pkg-config gcc g++ make libssl-dev zlib1g-dev protobuf-compiler python3-venv)

java_version() { java -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p' | head -1; }

# The brokers want Java 17 or newer; any that is here will do, whoever installed it.
java_package() {
    local version
    version=$(command -v java >/dev/null && java_version || true)
    [ "${version:-0}" -ge 17 ] && return
    if command -v apt-cache >/dev/null && ! apt-cache show openjdk-17-jdk-headless >/dev/null 2>&1; then
        echo default-jdk-headless
    else
        echo openjdk-17-jdk-headless
    fi
}

missing_packages() {
    if command -v dpkg-query >/dev/null; then
        local have
        have=$(dpkg-query -W -f='${db:Status-Status} ${Package}\n' "${packages[@]}" 2>/dev/null || true)
        for p in "${packages[@]}"; do
            grep -qx "installed $p" <<<"$have" && continue
            case $p in
                # Debian calls it pkgconf since trixie; pkg-config stays as a name that pulls it in.
                pkg-config) command -v pkg-config >/dev/null && continue ;;
                # A Maven that somebody unpacked is as good as the package.
                maven) command -v mvn >/dev/null && continue ;;
            esac
            echo "$p"
        done
    else
        local c
        for c in etcd:etcd-server mvn:maven clang:clang cmake:cmake pkg-config:pkg-config gcc:gcc g++:g++ make:make \
                 protoc:protobuf-compiler; do
            command -v "${c%%:*}" >/dev/null || echo "${c##*:}"
        done
        python3 -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
        # There is no command to look for: only the files that the builds open.
        compgen -G '/usr/lib*/libclang.so*' >/dev/null || compgen -G '/usr/lib*/llvm*/lib*/libclang.so*' >/dev/null \
            || compgen -G '/usr/lib/*/libclang*.so*' >/dev/null || echo libclang-dev
        [ -e /usr/include/openssl/ssl.h ] || echo libssl-dev
        [ -e /usr/include/zlib.h ] || echo zlib1g-dev
    fi
    java_package
}

mapfile -t missing < <(missing_packages)
if [ ${#missing[@]} -gt 0 ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -qq >/dev/null
        # Which Java there is can only be said once the lists of packages are here.
        mapfile -t missing < <(missing_packages)
        say "installing ${missing[*]}"
        apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
    else
        say "these system packages are missing: ${missing[*]}" >&2
        say "install them, then run this again:" >&2
        echo "    sudo apt-get install -y ${missing[*]}" >&2
        exit 1
    fi
fi

# --- the parts -----------------------------------------------------------------------------------------------------
mkdir -p "$home/stamps"
exec 9>"$home/.lock"
flock 9

# part NAME RESULT INPUT...: runs make_NAME, unless RESULT is there and the stamp says that it was made by these very lines
# from these very inputs.
part() {
    local name=$1 result=$2 stamp=$home/stamps/$1 want
    shift 2
    want=$({ declare -f "make_$name"; cat "$@"; } | sha256sum | cut -d' ' -f1)
    if [ -e "$result" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$want" ]; then return; fi
    rm -f "$stamp"
    "make_$name"
    echo "$want" > "$stamp"
    changed=yes
}

make_venv() {
    say "creating $home/venv"
    if ! "$home/venv/bin/python" -c 'import pip' 2>/dev/null; then
        rm -rf "$home/venv"
        python3 -m venv "$home/venv"
    fi
    "$home/venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$here/requirements.txt"
}

make_milvus() {
    say "unpacking the Milvus server"
    "$home/venv/bin/python" - "$home" <<'P'
import lzma, pathlib, shutil, sys
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
}

# jars NAME: all the jars of maven/NAME.xml into $home/NAME/libs.
jars() {
    say "fetching $1"
    local folder=$home/$1 settings=-s
    # Our settings take the place of one file, and of the one that is not there: mirrors and proxies that this machine has
    # in its own stay in force, the user's before ours.
    [ -e "$HOME/.m2/settings.xml" ] && settings=-gs
    rm -rf "$folder.new"
    mkdir -p "$folder.new" "$home/empty"
    MIGRANS_EMPTY_REPOSITORY=$home/empty mvn -q -B "$settings" "$here/maven/settings.xml" -f "$here/maven/$1.xml" \
        org.apache.maven.plugins:maven-dependency-plugin:2.8:copy-dependencies \
        -DoutputDirectory="$folder.new/libs" -DincludeScope=runtime
    rm -rf "$folder"
    mv "$folder.new" "$folder"
}
# In a venv of its own: its plugins are not to take part in our tests.
make_schemathesis() {
    say "installing schemathesis"
    [ -x "$home/schemathesis/bin/python" ] || python3 -m venv "$home/schemathesis"
    "$home/schemathesis/bin/python" -m pip install --quiet --disable-pip-version-check -r "$here/requirements-api.txt"
}
# Prometheus reads our metrics in a test, and its promtool the rules for alerts. Without it these tests are left out.
make_prometheus() {
    local unpacked=$home/prometheus.new
    say "installing Prometheus"
    rm -rf "$home/prometheus" "$unpacked"
    mkdir -p "$unpacked"
    if (cd "$unpacked" && fetch_prometheus >/dev/null 2>&1 && dpkg -x prometheus_*.deb .); then
        mkdir "$home/prometheus"
        mv "$unpacked/usr/bin/prometheus" "$unpacked/usr/bin/promtool" "$home/prometheus/"
    else
        say "the package prometheus can't be had by apt: tests with it are left out"
    fi
    rm -rf "$unpacked"
}
fetch_prometheus() {
    apt-get download prometheus && return
    # The lists of packages may not be here yet.
    [ "$(id -u)" = 0 ] && apt-get update && apt-get download prometheus
}
make_kafka() { jars kafka; }
make_pulsar() { jars pulsar; }

changed=
part venv "$home/venv/bin/python" "$here/requirements.txt"
part milvus "$home/bin/milvus" "$here/requirements.txt"
part schemathesis "$home/schemathesis/bin/st" "$here/requirements-api.txt"
part prometheus "$home/prometheus/promtool" /dev/null
part kafka "$home/kafka/libs" "$here/maven/kafka.xml"
part pulsar "$home/pulsar/libs" "$here/maven/pulsar.xml"
[ -z "$changed" ] || say "ready in $home"
