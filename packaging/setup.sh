#!/usr/bin/env bash
# Looks for what a command of the Makefile needs, and installs what is missing: setup.sh [--look] demo|test|test-all
#
# It installs with apt-get where it may: as root, or by a sudo that asks for no password. Everywhere else, and with
# --look, it prints the line that installs and ends with 1, so that nothing is built in vain. Rust is not installed: a
# distribution's is too old, and where a toolchain goes is for its owner to say.
set -u
cd "$(dirname "$0")/.."
CARGO=${CARGO:-cargo}

# From which command on, what is looked for (a command, a header, or a file), the Debian package that brings it.
needs() {
    cat <<'END'
demo      command  gcc         gcc
demo      command  cc          gcc
demo      header   stdio.h     libc6-dev
demo      command  objcopy     binutils
demo      file     certificates ca-certificates
test      command  g++         g++
test      command  patch       patch
test      command  script      bsdutils
test      command  valgrind    valgrind
test      command  ip          iproute2
test-all  command  cmake       cmake
test-all  command  pkg-config  pkg-config
test-all  command  groff       groff-base
test-all  header   zlib.h      zlib1g-dev
test-all  command  ld.lld      lld
test-all  command  mold        mold
test-all  command  clang       clang
END
}

look_only=
if [ "${1:-}" = --look ]; then
    look_only=yes
    shift
fi
case ${1:-} in
demo) wanted="demo" ;;
test) wanted="demo test" ;;
test-all) wanted="demo test test-all" ;;
*)
    echo "setup.sh [--look] demo|test|test-all" >&2
    exit 2
    ;;
esac

say() {
    echo "setup: $*" >&2
}

# What cargo downloads with: Debian's place, Fedora's, Alpine's.
has_certificates() {
    [ -e /etc/ssl/certs/ca-certificates.crt ] || [ -e /etc/pki/tls/certs/ca-bundle.crt ] || [ -e /etc/ssl/cert.pem ]
}

# is_there KIND NAME
is_there() {
    case $1 in
    command) command -v "$2" ;;
    header) echo "#include <$2>" | gcc -E - ;;
    file) has_certificates ;;
    esac >/dev/null 2>&1
}

# Sets `missing` to the names that are not there and `packages` to what brings them.
look() {
    local from kind name package
    missing=
    packages=
    while read -r from kind name package; do
        case " $wanted " in *" $from "*) ;; *) continue ;; esac
        is_there "$kind" "$name" && continue
        missing="$missing $name"
        case " $packages " in *" $package "*) ;; *) packages="$packages $package" ;; esac
    done < <(needs)
}

# The number in Cargo.toml is the one place where the wanted version stands.
rust_is_new_enough() {
    local rust has tool how="curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh"
    rust=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
    command -v rustup >/dev/null 2>&1 && how="rustup update stable && rustup default stable"
    for tool in "$CARGO" "${RUSTC:-rustc}"; do
        if ! has=$("$tool" --version 2>/dev/null); then
            say "no $tool that runs: Rust $rust or newer is needed, and this gets it: $how"
            return 1
        fi
        has=$(echo "$has" | cut -d' ' -f2)
        if [ "$(printf '%s\n%s\n' "$rust" "${has%%-*}" | sort -V | head -n 1)" != "$rust" ]; then
            say "$tool is $has: Rust $rust or newer is needed, and this gets it: $how"
            return 1
        fi
    done
}

# rustfmt and clippy belong to the toolchain, so rustup brings them, not the system.
rust_has_its_tools() {
    local absent=
    "$CARGO" fmt --version >/dev/null 2>&1 || absent="rustfmt"
    "$CARGO" clippy --version >/dev/null 2>&1 || absent="$absent clippy"
    [ -n "$absent" ] || return 0
    # shellcheck disable=SC2086
    [ -z "$look_only" ] && rustup component add $absent && return 0
    say "cargo has no ${absent# }, and this adds it: rustup component add $absent"
    return 1
}

# as_root COMMAND...
as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi
}

may_install() {
    [ -z "$look_only" ] && command -v apt-get >/dev/null && { [ "$(id -u)" -eq 0 ] || sudo -n true; } 2>/dev/null
}

# The one line for a person.
how_to_install() {
    local line="apt-get update && apt-get install -y$packages"
    command -v apt-get >/dev/null || { echo "with this system's package manager (the names are Debian's):$packages"; return; }
    if [ "$(id -u)" -eq 0 ]; then
        echo "$line"
    elif command -v sudo >/dev/null; then
        echo "sudo sh -c '$line'"
    else
        echo "su -c '$line'"
    fi
}

install_packages() {
    local log status=0
    log=$(mktemp) || return 1
    say "installing$packages"
    # shellcheck disable=SC2086
    { as_root apt-get update -qq &&
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages; } \
        >"$log" 2>&1 || status=1
    [ "$status" -eq 0 ] || tail -n 20 "$log" >&2
    rm -f "$log"
    return "$status"
}

ready=yes
rust_is_new_enough || ready=
look
if [ -n "$missing" ] && [ -n "$ready" ] && may_install; then
    install_packages && look
fi
if [ -n "$missing" ]; then
    say "not there:$missing. This installs them: $(how_to_install)"
    ready=
fi
if [ -n "$ready" ] && [ "$1" != demo ]; then
    rust_has_its_tools || ready=
fi
[ -n "$ready" ]
