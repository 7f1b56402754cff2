#!/bin/sh
# Builds and runs every program here against the static library; the headers also as C99 to C23 and C++, in any order,
# each alone. Usage: run.sh [NAME...], with INCLUDE, LIB and CC, CXX, CFLAGS, WRAP (e.g. valgrind -q) from the
# environment. Ends with one line; 0 only if everything passed.
set -u
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
INCLUDE=${INCLUDE:-$root/include}
LIB=${LIB:-$root/target/release/liblogship.a}
CC=${CC:-gcc} CXX=${CXX:-g++}
flags="-Wall -Wextra -Wpedantic -Werror -O1 -g ${CFLAGS:-} -I$INCLUDE -I$INCLUDE/w09 -I$INCLUDE/w10 -I$INCLUDE/w11"
libs="-lpthread -ldl -lm"
out=$(mktemp -d "${TMPDIR:-/tmp}/logship-own-build.XXXXXX") || exit 1
trap 'rm -rf "$out"' EXIT
trap 'exit 130' INT TERM
passed=0 failed=0

verdict() { # name status
    if [ "$2" -eq 0 ]; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "FAILED: $1"; fi
}
headers() {
    for std in c99 c11 c17 c2x gnu17; do
        for order in 1 2 3 4 5; do
            $CC -std=$std $flags -DHEADER_ORDER=$order -fsyntax-only "$here/header_forms.c"
            verdict "headers, $std, order $order" $?
        done
        for header in $(cd "$INCLUDE" && find . -name '*.h'); do
            printf '#include "%s"\n' "$header" | $CC -std=$std $flags -fsyntax-only -x c -
            verdict "$header alone, $std" $?
        done
    done
    for std in c++11 c++17 c++20; do
        $CXX -std=$std $flags -fsyntax-only "$here/cpp_headers.cpp"
        verdict "headers, $std" $?
    done
    for std in c99 c2x; do
        $CC -std=$std $flags "$here/header_forms.c" "$LIB" $libs -o "$out/forms-$std" && ${WRAP:-} "$out/forms-$std"
        verdict "header_forms, $std" $?
    done
}
all="abi_layout literal_headers null_args header_forms wal_damage wal_enospc checkpoint_damage quorum_cases ship_cases
rejoin_cases lifecycle additions cpp_headers headers"
for name in ${*:-$all}; do
    echo "== $name"
    case $name in
    headers) headers; continue ;;
    cpp_headers) $CXX -std=c++11 $flags "$here/$name.cpp" "$LIB" $libs -o "$out/$name" ;;
    *) $CC -std=c11 $flags "$here/$name.c" "$LIB" $libs -o "$out/$name" ;;
    esac && ${WRAP:-} "$out/$name"
    verdict "$name" $?
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
