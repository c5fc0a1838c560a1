#!/bin/sh
# Makes ready what the build needs beside Rust: a C and C++20 compiler, make, and libclang; and, for
# one of the tests, Python with venv.
#
#   deploy/setup.sh            install what is missing: package manager first, PyPI's libclang otherwise
#   deploy/setup.sh --with-tests   the same, and what tests run against: SoftHSM2 and OpenSC
#   deploy/setup.sh --user     without root: libclang from PyPI into .tools/, nothing else is touched
#   deploy/setup.sh --check    change nothing, say what is missing (exit 1 when something is)
#
# It may be run any number of times, from anywhere. When nothing is missing it installs nothing and
# asks no package manager. Not needed: cmake (RocksDB is built by cargo) and protoc (protox is Rust).
# The apt and --user ways are tested; dnf, pacman, apk and brew follow those systems' package lists.
set -eu
cd "$(dirname "$0")/.."

say() { printf '%s\n' "$*" >&2; }
have() { command -v "$1" >/dev/null 2>&1; }

# --- What is here ---------------------------------------------------------------------------------

local_toml=.cargo/local.toml # read by .cargo/config.toml, not tracked

# Prints a value that an earlier --user run left for cargo.
from_local_toml() {
    [ -f "$local_toml" ] || return 0
    sed -n "s/^$1 = .*value = \"\([^\"]*\)\".*/\1/p" "$local_toml"
}

# libclang-cpp is another library that happens to share the prefix: it must not count.
holds_libclang() {
    for dir in "$@"; do
        for file in "$dir"/libclang.so* "$dir"/libclang-*.so* "$dir"/libclang.dylib; do
            case $file in */libclang-cpp*) continue ;; esac
            [ -e "$file" ] && return 0
        done
    done
    return 1
}

# The places in which clang-sys looks, in its order: when the variable is set it looks nowhere else.
has_libclang() {
    path=${LIBCLANG_PATH:-$(from_local_toml LIBCLANG_PATH)}
    if [ -n "$path" ]; then
        [ -f "$path" ] && return 0
        holds_libclang "$path"
        return
    fi
    if have llvm-config; then
        prefix=$(llvm-config --prefix)
        holds_libclang "$prefix/lib" "$prefix/lib64" && return 0
    fi
    holds_libclang /usr/local/llvm*/lib* /usr/local/lib*/*/* /usr/local/lib*/* /usr/local/lib* \
        /usr/lib*/*/* /usr/lib*/* /usr/lib* \
        /Library/Developer/CommandLineTools/usr/lib \
        /Applications/Xcode.app/Contents/Developer/Toolchains/XcodeDefault.xctoolchain/usr/lib
}

# stddef.h and its kin belong to the compiler: libclang without them cannot read RocksDB's header.
has_clang_headers() {
    args=${BINDGEN_EXTRA_CLANG_ARGS:-$(from_local_toml BINDGEN_EXTRA_CLANG_ARGS)}
    case $args in
        -I*) [ -f "${args#-I}/stddef.h" ]; return ;; # also finds out that gcc has moved since
        ?*) return 0 ;;
    esac
    for file in /usr/lib*/clang/*/include/stddef.h /usr/lib*/llvm*/lib*/clang/*/include/stddef.h \
        /usr/lib/llvm*/*/lib/clang/*/include/stddef.h /usr/local/lib*/clang/*/include/stddef.h \
        /Library/Developer/CommandLineTools/usr/lib/clang/*/include/stddef.h \
        /Applications/Xcode.app/Contents/Developer/Toolchains/XcodeDefault.xctoolchain/usr/lib/clang/*/include/stddef.h; do
        [ -f "$file" ] && return 0
    done
    return 1
}

# CC and CXX may hold two words, such as "ccache g++".
cc=${CC:-cc} cxx=${CXX:-c++}

# shellcheck disable=SC2086
compiles_cpp20() { echo 'int main() {}' | $cxx -std=c++20 -x c++ -fsyntax-only - >/dev/null 2>&1; }

# True when the first version is at least the second.
at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -t . -k 1,1n -k 2,2n -k 3,3n | head -n 1)" = "$2" ]; }

missing() {
    have "${cc%% *}" || echo "a C compiler (cc)"
    if ! have "${cxx%% *}"; then echo "a C++ compiler (c++)"
    elif ! compiles_cpp20; then echo "a C++ compiler that knows C++20 (g++ 11 or newer)"; fi
    have make || echo "make"
    if ! has_libclang; then echo "libclang"
    elif ! has_clang_headers; then echo "libclang's own headers"; fi
}

# Not for the build: one test runs a client in Python.
has_python_venv() { python3 -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1; }

# Not for the build: tests keep a master key in SoftHSM2, and look at it with OpenSC's tools.
has_softhsm() {
    have softhsm2-util && have pkcs11-tool || return 1
    for file in /usr/lib/softhsm/libsofthsm2.so /usr/lib*/*/softhsm/libsofthsm2.so /usr/lib64/pkcs11/libsofthsm2.so \
        /usr/lib64/softhsm/libsofthsm2.so /usr/local/lib/softhsm/libsofthsm2.so; do
        [ -f "$file" ] && return 0
    done
    return 1
}

report_missing() { missing | while read -r what; do say "setup: missing: $what"; done; }

# --- How it comes here ----------------------------------------------------------------------------

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"
    elif [ -t 0 ]; then sudo "$@"
    else sudo -n "$@"; fi
}

can_be_root() { [ "$(id -u)" = 0 ] || { have sudo && { [ -t 0 ] || sudo -n true 2>/dev/null; }; }; }

# libclang-dev is the one name that every Debian and Ubuntu has, but it brings 250 MB of static
# libraries. bindgen loads libclang at run time and needs only the shared library and its headers:
# 50 MB. The headers' package carries the version in its name, which libclang1 tells.
install_with_apt() {
    say "setup: installing with apt-get: g++, make, libclang"
    as_root apt-get update -q || return
    number=$(apt-cache depends libclang1 2>/dev/null | sed -n 's/.*Depends: libclang1-\([0-9][0-9]*\).*/\1/p' | head -n 1)
    if [ -n "$number" ] && apt-cache show "libclang-common-$number-dev" >/dev/null 2>&1; then
        libclang="libclang1 libclang-common-$number-dev"
    else
        libclang=libclang-dev
    fi
    # shellcheck disable=SC2086 # one or two package names
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends g++ make $libclang
}

install_with_brew() {
    say "setup: installing with brew: llvm"
    brew install llvm || return
    # Homebrew keeps llvm out of the places in which clang-sys looks.
    write_local_toml "LIBCLANG_PATH = { value = \"$(brew --prefix llvm)/lib\" }" \
        "BINDGEN_EXTRA_CLANG_ARGS = { value = \"-I$(echo "$(brew --prefix llvm)"/lib/clang/*/include)\" }"
}

install_python() {
    if have brew; then brew install python
    elif ! can_be_root; then say "setup: neither root nor sudo here"; return 1
    elif have apt-get; then
        as_root apt-get update -q || return
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends python3 python3-venv
    elif have dnf; then as_root dnf install -y python3
    elif have pacman; then as_root pacman -S --needed --noconfirm python
    elif have apk; then as_root apk add python3
    else say "setup: no package manager that this script knows"; return 1; fi
}

install_softhsm() {
    say "setup: installing softhsm2 and opensc, for the tests"
    if ! can_be_root; then say "setup: neither root nor sudo here"; return 1
    elif have apt-get; then
        as_root apt-get update -q || return
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends softhsm2 opensc
    elif have dnf; then as_root dnf install -y softhsm opensc
    elif have pacman; then as_root pacman -S --needed --noconfirm softhsm opensc
    else say "setup: no package manager that this script knows"; return 1; fi
}

install_with_package_manager() {
    if have brew; then install_with_brew # refuses to run as root
    elif ! can_be_root; then say "setup: neither root nor sudo here"
    elif have apt-get; then install_with_apt
    elif have dnf; then as_root dnf install -y gcc-c++ make clang-libs clang-devel
    elif have pacman; then as_root pacman -S --needed --noconfirm gcc make clang
    elif have apk; then as_root apk add g++ make clang-dev clang-libclang
    else say "setup: no package manager that this script knows"; fi
}

write_local_toml() {
    mkdir -p .cargo
    { echo "# Written by deploy/setup.sh."; echo "[env]"; printf '%s\n' "$@"; } >"$local_toml"
}

# The wheels are pinned by digest: what is loaded into the build is what was looked at once.
wheels='libclang==18.1.1
    --hash=sha256:c533091d8a3bbf7460a00cb6c1a71da93bffe148f172c7d03b1c31fbf8aa2a0b
    --hash=sha256:54dda940a4a0491a9d1532bf071ea3ef26e6dbaf03b5000ed94dd7174e8f9592
    --hash=sha256:69f8eb8f65c279e765ffd28aaa7e9e364c776c17618af8bff22a8df58677ff4f
    --hash=sha256:6f14c3f194704e5d09769108f03185fce7acaf1d1ae4bbb2f30a72c2400cb7c5
    --hash=sha256:0b2e143f0fac830156feb56f9231ff8338c20aecfe72b4ffe96f19e5a1dbb69a'

fetch_libclang_from_pypi() {
    say "setup: fetching libclang 18.1.1 from PyPI into .tools/ (25 MB)"
    if ! python3 -m pip --version >/dev/null 2>&1; then
        say "setup: python3 with pip is needed for that, and is not here"
        return 1
    fi
    mkdir -p .tools
    echo "$wheels" | tr '\n' ' ' >.tools/wheels.txt
    python3 -m pip download -q --no-deps --only-binary :all: --require-hashes -r .tools/wheels.txt -d .tools || return
    python3 - <<'PYTHON'
import glob, os, zipfile
wheel = zipfile.ZipFile(glob.glob(".tools/libclang-*.whl")[0])
for name in wheel.namelist():
    if name.endswith(("native/libclang.so", "native/libclang.dylib")):
        with open(os.path.join(".tools", os.path.basename(name)), "wb") as out:
            out.write(wheel.read(name))
PYTHON
    rm -f .tools/libclang-*.whl .tools/wheels.txt
}

# The wheel has no compiler headers: it is lent those of cc. `relative` counts from the folder that
# holds .cargo/.
use_own_libclang() {
    # The answer outlives neither .tools nor the compiler it names; has_* look at both again.
    if has_libclang && [ -z "$(from_local_toml LIBCLANG_PATH)" ]; then
        libclang="# libclang is the system's."
    else
        holds_libclang .tools || fetch_libclang_from_pypi || return
        libclang='LIBCLANG_PATH = { value = ".tools", relative = true }'
    fi
    write_local_toml "$libclang" "BINDGEN_EXTRA_CLANG_ARGS = { value = \"-I$($cc -print-file-name=include)\" }"
}

# --- Do it ----------------------------------------------------------------------------------------

mode=${1:-auto} with_tests=
case $mode in
    auto | --user | --check) ;;
    --with-tests) mode=auto with_tests=yes ;;
    *) say "usage: deploy/setup.sh [--with-tests | --user | --check]"; exit 2 ;;
esac

if ! have cargo; then
    say "setup: missing: Rust. See https://rustup.rs"
    exit 1
fi
rust_wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
rust_here=$(rustc --version | cut -d ' ' -f 2 | cut -d - -f 1)
if ! at_least "$rust_here" "$rust_wanted"; then
    say "setup: Rust $rust_here is too old, $rust_wanted is needed: rustup update stable"
    exit 1
fi

if [ -n "${LIBCLANG_PATH:-}" ] && ! has_libclang; then
    say "setup: LIBCLANG_PATH is set to $LIBCLANG_PATH, where no libclang is, and hides all others: unset it"
    exit 1
fi
if [ -n "$(missing)" ]; then
    report_missing
    [ "$mode" = --check ] && exit 1
    if [ "$mode" = auto ]; then
        install_with_package_manager || say "setup: the package manager failed; trying without it"
    fi
    if ! has_libclang || ! has_clang_headers; then
        use_own_libclang || say "setup: fetching libclang failed"
    fi
    if [ -n "$(missing)" ]; then
        report_missing
        say "setup: install these by hand, or set LIBCLANG_PATH, then run it again"
        exit 1
    fi
fi

if ! has_python_venv; then
    say "setup: missing: python3 (3.10 or newer) with venv, for one of the tests"
    [ "$mode" = --check ] && exit 1
    if [ "$mode" = auto ]; then install_python || say "setup: the package manager failed"; fi
fi
if [ -n "$with_tests" ] && ! has_softhsm; then
    install_softhsm || say "setup: the package manager failed"
    if ! has_softhsm; then
        say "setup: the tests of the PKCS#11 backend need SoftHSM2 and OpenSC: apt-get install softhsm2 opensc"
        exit 1
    fi
fi
if has_python_venv; then
    say "setup: everything is here"
else
    say "setup: all for the build is here; one test will fail without Python"
fi
built() { ls "${CARGO_TARGET_DIR:-target}"/*/build/librocksdb-sys-*/out/librocksdb.a >/dev/null 2>&1; }
built || say "setup: the first build compiles RocksDB, once: about 8 minutes on 2 cores"
