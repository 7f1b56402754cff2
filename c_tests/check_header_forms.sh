#!/bin/sh
# The headers as C99 to C23 and C++, in any order, and each alone. The environment is run_lessons.sh's.
set -u
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
include=$here/../include
CC=${CC:-gcc}
CXX=${CXX:-g++}
flags="-Wall -Wextra -Wpedantic -Werror -fsyntax-only -I$include -I$include/w09 -I$include/w10 -I$include/w11"
failed=0
passed=0
check() {
    if "$@"; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
}

# The variables hold several words each, so they are left unquoted.
# shellcheck disable=SC2086
for std in c99 c11 c17 c2x gnu17; do
    for order in 1 2 3 4 5; do
        check $CC -std=$std $flags -DHEADER_ORDER=$order "$here/own/header_forms.c"
    done
    for header in $(cd "$include" && find . -name '*.h'); do
        check $CC -std=$std $flags -include "$header" -x c /dev/null
    done
done
# shellcheck disable=SC2086
for std in c++11 c++17 c++20; do
    check $CXX -std=$std $flags "$here/own/cpp_headers.cpp"
done

# A struct that is laid out otherwise than the library's does not compile, and the message says whose header is to go.
work=$(mktemp -d "${TMPDIR:-/tmp}/logship-headers-XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
# refused WANTED TEXT COMMAND...: the compiler, reading TEXT, must fail and say WANTED.
refused() {
    wanted=$1
    text=$2
    shift 2
    if printf '%b\n' "$text" | "$@" - >"$work/said" 2>&1 || ! grep -q -- "$wanted" "$work/said"; then
        echo "not refused with '$wanted': $text: $*"
        head -n 5 "$work/said"
        failed=$((failed + 1))
    else
        passed=$((passed + 1))
    fi
}
# shellcheck disable=SC2086
for header in w09/kv_store.h w10/wal_record.h w10/wal_writer.h w11/repl_config.h w11/repl_ack.h logship.h; do
    text="#include <pthread.h>\n#pragma pack(1)\n#include \"$header\""
    refused "is laid out otherwise in liblogship" "$text" $CC -std=c11 $flags -x c
    refused "logship_layout_" "$text" $CC -std=c99 $flags -x c
    refused "is laid out otherwise in liblogship" "$text" $CXX -std=c++11 $flags -x c++
done
# Types that are not the real ones, as a C parser's stand-ins for the system's headers have them.
mkdir "$work/stand_ins"
echo 'typedef int uint64_t, uint32_t, uint16_t, uint8_t, int64_t;' >"$work/stand_ins/stdint.h"
# shellcheck disable=SC2086
refused "struct repl_ack is laid out otherwise" '#include "w11/repl_ack.h"' $CC -std=c11 -I"$work/stand_ins" $flags -x c
# A student's own repl_config.h: in a copy of our headers, and beside the program.
cp -r "$include" "$work/copy" && mkdir -p "$work/beside/w11"
cat >"$work/beside/w11/repl_config.h" <<'EOF'
#ifndef REPL_CONFIG_H
#define REPL_CONFIG_H
#include <stdint.h>
struct repl_node { char host[64]; uint16_t port; int fd; uint8_t online; };
struct replication_config { struct repl_node leader, followers[8]; int follower_count; };
#endif
EOF
cp "$work/beside/w11/repl_config.h" "$work/copy/w11/repl_config.h"
for header in w11/repl_ship.h w11/repl_quorum.h w11/repl_rejoin.h logship.h; do
    refused "delete the repl_config.h of your own" "#include \"$header\"" \
        "$CC" -std=c11 -fsyntax-only -I"$work/copy" -x c
    refused "beside/w11/repl_config.h" "#include \"w11/repl_config.h\"\n#include \"$header\"" \
        "$CC" -std=c11 -fsyntax-only -I"$work/beside" -I"$include" -x c
done
# The canary: what is right is not refused.
before=$failed
refused "" '#include "logship.h"' "$CC" -std=c11 -I"$include" -fsyntax-only -x c >/dev/null
if [ "$failed" -gt "$before" ]; then failed=$before; else failed=$((failed + 1)); fi

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
