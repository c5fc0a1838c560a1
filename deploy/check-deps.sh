#!/bin/sh
# Holds what deny.toml says of the dependency tree, with cargo alone, and what it cannot say:
#
#   1. ring is there, and no other provider of TLS, authenticated encryption or signatures is.
#      Hash functions of others may be (AWS request signing brings its own): no key of ours meets them.
#   2. The one exception is argon2, which ring lacks: nothing but argon2 may lead to its blake2.
#   3. tonic, prost, rustls, ring and rocksdb are there in one version: with two, types do not fit
#      together, or two providers or two C++ libraries meet in one process.
#   4. Every licence is one of those allowed, and every crate comes from crates.io.
#
# What counts is what is compiled into a program for this machine: all features, no dev-dependencies.
#
#   deploy/check-deps.sh               check the tree
#   deploy/check-deps.sh --selftest    check that each rule finds a planted violation
set -eu
cd "$(dirname "$0")/.."

one_version_only='tonic prost rustls ring rocksdb librocksdb-sys'
banned=$(sed -n 's/.*{ crate = "\([^"]*\)".*/\1/p' deny.toml)
licences=$(sed -n '/^\[licenses\]/,/^\]/s/^    "\(.*\)",$/\1/p' deny.toml)

# --- The rules: lists in, complaints out ----------------------------------------------------------

# Reads "name version" lines.
complain_of_crates() {
    awk -v banned="$banned" -v single="$one_version_only" '
        BEGIN { split(banned, b, /[ \n]+/); for (i in b) is_banned[b[i]] = 1; split(single, s, " ") }
        seen[$1, $2]++ { next }
        { versions[$1] = versions[$1] " " $2; count[$1]++ }
        $1 in is_banned { print "banned: " $1 " " $2 ", see deny.toml; what brings it: cargo tree -e normal --workspace --all-features -i " $1 }
        END {
            for (i in s) if (count[s[i]] > 1) print "more than one version: " s[i] versions[s[i]]
            if (!count["ring"]) print "ring is not in the tree"
        }'
}

# Reads the names of the crates that depend on blake2.
complain_of_blake2_users() { awk '$1 != "argon2" { print "blake2 is there for argon2 alone, but used by: " $1 }'; }

# Reads "name version|licence expression" lines. OR binds looser than AND; a slash is an old OR.
complain_of_licences() {
    awk -F '|' -v allowed="$licences" '
        BEGIN { n = split(allowed, list, "\n"); for (i = 1; i <= n; i++) ok[list[i]] = 1 }
        function holds_all(text,    part, k, i) {
            k = split(text, part, / AND /)
            for (i = 1; i <= k; i++) if (part[i] != "yes" && !(part[i] in ok)) return 0
            return 1
        }
        function holds(text,    part, k, i) {
            k = split(text, part, / OR /)
            for (i = 1; i <= k; i++) if (holds_all(part[i])) return 1
            return 0
        }
        {
            text = $2
            gsub(/ *\/ */, " OR ", text)
            while (match(text, /\([^()]*\)/))
                text = substr(text, 1, RSTART - 1) \
                    (holds(substr(text, RSTART + 1, RLENGTH - 2)) ? "yes" : "no") substr(text, RSTART + RLENGTH)
            if (!holds(text)) print "licence not allowed: " $1 ": " ($2 == "" ? "none given" : $2)
        }'
}

# Reads Cargo.lock.
complain_of_sources() {
    sed -n 's/^source = "\(.*\)"/\1/p' | sort -u | grep -vFx 'registry+https://github.com/rust-lang/crates.io-index' |
        sed 's/^/not from crates.io: /' || true
}

# --- Their own test -------------------------------------------------------------------------------

failures=0

# expect <finds|passes> <rule> <what it shows> <input>
expect() {
    found=$(printf '%s\n' "$4" | "$2")
    case $1 in finds) [ -n "$found" ] ;; passes) [ -z "$found" ] ;; esac && return
    echo "selftest: $2 should have $1 this: $3${found:+ ($found)}"
    failures=$((failures + 1))
}

selftest() {
    rest='ring 0.17.14
tonic 0.14.9'
    expect passes complain_of_crates "a good tree" "$rest"
    expect passes complain_of_crates "one crate listed twice" "$rest
ring 0.17.14"
    expect passes complain_of_crates "names that only contain a banned one" "$rest
openssl-probe 0.1.6
rustls-native-certs 0.8.1
rsa-oaep-names 1.0.0"
    for crate in $banned; do
        expect finds complain_of_crates "$crate" "$rest
$crate 1.0.0"
    done
    for crate in aws-lc-rs aws-lc-sys openssl-sys openssl native-tls rustls-pemfile bincode rsa reqwest; do
        expect finds complain_of_crates "$crate, whatever deny.toml says" "$rest
$crate 1.0.0"
    done
    for crate in $one_version_only; do
        expect finds complain_of_crates "two versions of $crate" "$rest
$crate 98.0.0
$crate 99.0.0"
    done
    expect passes complain_of_crates "two versions of a crate that does not matter" "$rest
syn 2.0.0
syn 3.0.0"
    expect finds complain_of_crates "a tree without ring" 'tonic 0.14.9'
    expect passes complain_of_blake2_users "argon2" 'argon2 v0.5.3'
    expect finds complain_of_blake2_users "another user of blake2" 'argon2 v0.5.3
snow v0.9.6'
    for licence in 'MIT' 'MIT/Apache-2.0' 'GPL-3.0 OR MIT' '(MIT OR GPL-3.0) AND Unicode-3.0' 'Apache-2.0 WITH LLVM-exception'; do
        expect passes complain_of_licences "$licence" "a 1.0|$licence"
    done
    for licence in '' 'GPL-3.0' 'MIT AND GPL-3.0' 'MPL-2.0 OR GPL-3.0' '(MIT OR ISC) AND AGPL-3.0' 'MIT-0'; do
        expect finds complain_of_licences "$licence" "a 1.0|$licence"
    done
    expect passes complain_of_sources "crates.io" 'source = "registry+https://github.com/rust-lang/crates.io-index"'
    expect finds complain_of_sources "a git repository" 'source = "git+https://example.org/ring.git#0123456"'
    if [ "$failures" -gt 0 ]; then exit 1; fi
    echo "deps: every rule finds its planted violation"
}

# --- Do it ----------------------------------------------------------------------------------------

case ${1:-} in
    --selftest) selftest; exit ;;
    '') ;;
    *) echo "usage: deploy/check-deps.sh [--selftest]" >&2; exit 2 ;;
esac

# A list that could not be read would forbid nothing.
[ -n "$banned" ] && [ -n "$licences" ] || { echo "deps: deny.toml has no bans or no licences" >&2; exit 1; }

tree() { cargo tree --locked --workspace --all-features --prefix none "$@"; }
crates=$(tree -e normal | awk 'NF { sub(/^v/, "", $2); print $1, $2 }' | sort -u)
licensed=$(tree -e normal,build,dev --format '{p}|{l}' | sed 's/ (\*)$//' | awk 'NF' | sort -u)
blake2_users=$(case $crates in *"
blake2 "*) tree -e normal -i blake2 --depth 1 | sed 1d ;; esac)

complaints=$(
    echo "$crates" | complain_of_crates
    echo "$blake2_users" | awk 'NF' | complain_of_blake2_users
    echo "$licensed" | complain_of_licences
    complain_of_sources <Cargo.lock
)
if [ -n "$complaints" ]; then
    echo "$complaints" | sed 's/^/deps: /' >&2
    exit 1
fi
echo "deps: $(echo "$crates" | wc -l | tr -d ' ') crates, ring the only provider, no second version of: $one_version_only"
