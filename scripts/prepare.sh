#!/usr/bin/env bash
# What the other scripts need of a machine. Sourced, not run. Each function says what it installs before it does,
# and does nothing where the tool is there already.

# Prints a line that stands out among the output of tools.
say() {
    printf '\n==> %s\n' "$*"
}

# Prints what is wrong and what to do about it, and gives up.
fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# Runs a command as root, by sudo where needed.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        return 1
    fi
}

# Installs a Debian or Ubuntu package; fails quietly elsewhere.
apt_install() {
    command -v apt-get >/dev/null || return 1
    say "installing the system package $1 (apt-get)"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q "$1" >/dev/null 2>&1 && return 0
    as_root apt-get update -q >/dev/null 2>&1 || return 1
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q "$1" >/dev/null 2>&1
}

# MiniKafka stands on io_uring: anything but Linux 5.8 or later cannot run it.
prepare_kernel() {
    [ "$(uname -s)" = Linux ] || fail "MiniKafka runs on Linux only (io_uring); this is $(uname -s)"
    local major minor
    IFS=.- read -r major minor _ < <(uname -r)
    if [ "$major" -lt 5 ] || { [ "$major" -eq 5 ] && [ "${minor:-0}" -lt 8 ]; }; then
        fail "MiniKafka needs Linux 5.8 or later; this is $(uname -r)"
    fi
}

# A C compiler: zstd and glommio's liburing are C.
prepare_compiler() {
    command -v cc >/dev/null && return 0
    apt_install build-essential || fail "no C compiler (cc): install gcc or clang"
}

# ZooKeeper's jars and a Java to run them, which tests and scripts/cluster start themselves: nothing runs as a service. Jars of
# an unpacked release do as well: MINIKAFKA_ZOOKEEPER_CLASSPATH='DIRECTORY/lib/*'.
prepare_zookeeper() {
    local how="install it from your distribution, or unpack a release and set MINIKAFKA_ZOOKEEPER_CLASSPATH='DIRECTORY/lib/*'"
    command -v java >/dev/null || apt_install default-jre-headless || fail "no Java to run ZooKeeper with: $how"
    if [ -z "${MINIKAFKA_ZOOKEEPER_CLASSPATH:-}" ] && [ ! -r /usr/share/java/zookeeper.jar ]; then
        apt_install libzookeeper-java || fail "no ZooKeeper to run: $how"
    fi
}

# Prometheus and its promtool, in the path afterwards. The Debian package would start a service, so it is unpacked beside the
# build instead of installed. Fails quietly where it is not to be had.
prepare_prometheus() {
    local tools=${CARGO_TARGET_DIR:-target}/tools
    PATH=$PATH:$(realpath -m "$tools")/prometheus/usr/bin
    command -v promtool >/dev/null && command -v prometheus >/dev/null && return 0
    command -v apt-get >/dev/null && command -v dpkg >/dev/null || return 1
    say "unpacking Debian's prometheus into $tools/prometheus (apt-get download; nothing is installed)"
    mkdir -p "$tools/prometheus" || return 1
    (
        cd "$tools/prometheus" || exit 1
        apt-get download -q prometheus >/dev/null 2>&1 ||
            { as_root apt-get update -q >/dev/null 2>&1 && apt-get download -q prometheus >/dev/null 2>&1; } || exit 1
        dpkg -x prometheus_*.deb . && rm prometheus_*.deb
    ) || return 1
    command -v promtool >/dev/null
}

# What faults of the network need. Without them, or without root, a cluster runs on loopback and says what it cannot do.
prepare_network() {
    [ "$(id -u)" -eq 0 ] || return 0
    command -v ip >/dev/null && command -v tc >/dev/null || apt_install iproute2 || return 0
    command -v nft >/dev/null || command -v iptables >/dev/null || apt_install nftables || return 0
}

# Python 3.9 or later, and a virtualenv in target/python with the client and what its tests and linters need (pip). Fails where
# there is no such Python; what pip cannot get is an error.
prepare_python() {
    local environment=${CARGO_TARGET_DIR:-target}/python
    command -v python3 >/dev/null || apt_install python3 || return 1
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 9))' || return 1
    python3 -c 'import ensurepip, venv' 2>/dev/null || apt_install python3-venv || return 1
    if [ ! -x "$environment/bin/pip" ]; then
        say "making a virtualenv in $environment (remove it as you like)"
        python3 -m venv "$environment" || return 1
    fi
    [ "$environment/installed" -nt clients/python/pyproject.toml ] && return 0
    say "installing the Python client and the tools of its tests into $environment (pip)"
    "$environment/bin/pip" install --quiet --disable-pip-version-check --editable 'clients/python[test,lint]' ||
        fail "pip could not install what clients/python/pyproject.toml names: see above"
    touch "$environment/installed"
}

# Go, new enough for clients/go (1.21 and later get by themselves what a go.mod asks for). Fails where there is none.
prepare_go() {
    command -v go >/dev/null || apt_install golang-go || return 1
    [[ "$(go env GOVERSION)" =~ ^go1\.([0-9]+) ]] && [ "${BASH_REMATCH[1]}" -ge 21 ]
}

# A tool in Go, by name and by what is installed: its path is printed. Fails where there is no Go, or no way to get it.
go_tool() {
    local directory path
    command -v "$1" && return 0
    directory=$(realpath -m "${CARGO_TARGET_DIR:-target}/tools")
    path=$directory/$1
    if [ ! -x "$path" ]; then
        command -v go >/dev/null || return 1
        say "installing $2 into $directory (go install)" >&2
        GOBIN=$directory go install "$2" >&2 || return 1
    fi
    printf '%s\n' "$path"
}

# A tool that comes as a Python wheel, by name and by what is installed: its path is printed. Fails where there is no way to get it.
python_tool() {
    local directory
    command -v "$1" && return 0
    directory=$(realpath -m "${CARGO_TARGET_DIR:-target}/tools/python")
    if [ ! -x "$directory/bin/$1" ]; then
        say "installing $2 into $directory (pip)" >&2
        python3 -m venv "$directory" >&2 &&
            "$directory/bin/pip" install --quiet --disable-pip-version-check "$2" >&2 || return 1
    fi
    printf '%s\n' "$directory/bin/$1"
}

# Rust, with the components named as arguments.
prepare_rust() {
    if ! command -v cargo >/dev/null && [ -r "${CARGO_HOME:-$HOME/.cargo}/env" ]; then
        # shellcheck source=/dev/null
        . "${CARGO_HOME:-$HOME/.cargo}/env"
    fi
    if ! command -v cargo >/dev/null; then
        command -v curl >/dev/null || apt_install curl || fail "no curl: install it, or Rust from https://rustup.rs"
        say "installing Rust by rustup, for this user only (remove it with: rustup self uninstall)"
        curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal
        # shellcheck source=/dev/null
        . "${CARGO_HOME:-$HOME/.cargo}/env"
    fi
    # One toolchain for everybody; rustup downloads it at the first use.
    rustc --version >/dev/null || fail "the Rust toolchain of rust-toolchain.toml does not install: see above"
    local component
    for component in "$@"; do
        cargo "${component/rustfmt/fmt}" --version >/dev/null 2>&1 && continue
        say "installing the Rust component $component (rustup)"
        rustup component add "$component" || fail "component $component is missing: install it with your Rust"
    done
}
