#!/bin/bash
# The rows of the table in docs/linking.md: each linker and compiler, with a function of the program's own, beside zlib
# (shared and static, before and behind), and beside another Rust library. make linker-test.
# LOGSHIP_LIBS as run_lessons.sh's, the static library. Everything it needs is in Debian 12, and named if it is missing.
set -u
here=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/.." && pwd)
LOGSHIP_LIBS=${LOGSHIP_LIBS:-$root/target/release/liblogship.a -lpthread -ldl -lm}
RUSTC=${RUSTC:-rustc}
flags="-std=c11 -O1 -I$root/include -I$root/include/w09 -I$root/include/w10 -I$root/include/w11"
for tool in gcc:gcc clang:clang ld.bfd:binutils ld.gold:binutils ld.lld:lld mold:mold gzip:gzip "$RUSTC:rustc"; do
    command -v "${tool%%:*}" >/dev/null || { echo "${tool%%:*} is missing: apt-get install ${tool##*:}" >&2; exit 1; }
done
echo "#include <zlib.h>" | gcc -E - >/dev/null 2>&1 ||
    { echo "zlib.h is missing: apt-get install zlib1g-dev" >&2; exit 1; }

work=$(mktemp -d "${TMPDIR:-/tmp}/logship-linkers-XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
cd "$work" || exit 1
passed=0
failed=0

# works NAME COMMAND...: a link that must succeed, and ./program, which must end with 0.
works() {
    local name=$1
    shift
    rm -f program beside.gz
    if "$@" -o program >output 2>&1 && timeout 60 ./program >>output 2>&1 &&
        { [ ! -e beside.gz ] || gzip -t beside.gz; }; then
        passed=$((passed + 1))
    else
        echo "FAILED: $name: $*" >&2
        tail -n 8 output >&2
        failed=$((failed + 1))
    fi
}

# A conflict rule of the program's own, by which the first write stays: the library must ask it.
cat >rule.c <<'END'
#include <logship.h>
int repl_resolve_conflict(uint64_t existing_ts, uint64_t incoming_ts, const char *existing, const char *incoming)
{
    (void)existing_ts, (void)incoming_ts, (void)incoming;
    return existing == NULL ? APPLY : SKIP;
}
END
cat >ask.c <<'END'
#include <logship.h>
int main(void)
{
    struct kv_store store;
    char key[] = "k", value[] = "v";
    struct wal_record record = {.op = WAL_OP_SET, .key = key, .key_len = 1, .value = value, .value_len = 1};
    int applied;
    if (kv_store_init(&store) != 0)
        return 1;
    record.timestamp = 1;
    applied = kv_store_apply(&store, &record);
    record.timestamp = 2;
    applied += kv_store_apply(&store, &record);
    kv_store_destroy(&store);
    return applied == 1 ? 0 : 1;
}
END
# A program with a crc32_init of its own, whose crc32 is zlib's.
cat >own_init.c <<'END'
#include <zlib.h>
#include <logship.h>
#include <string.h>
void crc32_init(void)
{
}
int main(void)
{
    char key[] = "k", value[] = "v";
    uint8_t bytes[64];
    struct wal_record record = {.op = WAL_OP_SET, .key = key, .key_len = 1, .value = value, .value_len = 1};
    int len = wal_record_encode(&record, bytes, sizeof bytes);
    return len == 23 && zlibVersion() != NULL && wal_record_decode(bytes, 23, &record) == 0 ? 0 : 1;
}
END
# Another Rust library, with a panic that it catches itself.
cat >other.rs <<'END'
#[unsafe(no_mangle)]
pub extern "C" fn other_sum(n: u32) -> u32 {
    std::panic::set_hook(Box::new(|_| ()));
    let caught = std::panic::catch_unwind(move || if n > 2 { panic!("on purpose") } else { n });
    caught.unwrap_or_else(|_| (1..=n).map(|i| i.to_string()).map(|s| s.parse::<u32>().unwrap()).sum())
}
#[unsafe(no_mangle)]
pub extern "C" fn other_quiet(n: u32) -> u32 {
    n.to_string().len() as u32
}
END
cat >two.c <<'END'
#include <logship.h>
unsigned other_sum(unsigned n), other_quiet(unsigned n);
int main(void)
{
    struct kv_store store;
    if (kv_store_init(&store) != 0 || kv_store_set(&store, "a", "1") != 0 || kv_store_count(&store) != 1)
        return 1;
    kv_store_destroy(&store);
    return QUIET ? other_quiet(1000) != 4 : other_sum(4) != 10;
}
END
$RUSTC --edition 2024 --crate-type staticlib -O -o other_plain.a other.rs >output 2>&1 &&
    $RUSTC --edition 2024 --crate-type staticlib -O -C lto=fat -o other_lto.a other.rs >output 2>&1 &&
    $RUSTC --edition 2024 --crate-type staticlib -O -C lto=fat -C panic=abort -o other_abort.a other.rs >output 2>&1 ||
    { cat output >&2; exit 1; }

z_static="-Wl,-Bstatic -lz -Wl,-Bdynamic"
# The variables hold several words each, so they are left unquoted.
# shellcheck disable=SC2086
for compiler in gcc clang; do
    $compiler $flags -c rule.c ask.c own_init.c "$here/install/beside_zlib.c" "$here/install/zlib_part.c" || exit 1
    $compiler $flags -DONLY_ZLIB_CALLS_ITS_OWN -c -o only_zlib.o "$here/install/beside_zlib.c" || exit 1
    $compiler $flags -DONLY_ZLIB_CALLS_ITS_OWN -c -o only_part.o "$here/install/zlib_part.c" || exit 1
    $compiler $flags -DQUIET=0 -c -o two.o two.c && $compiler $flags -DQUIET=1 -c -o two_quiet.o two.c || exit 1
    $compiler $flags -c -o literal.o "$here/install/own_crc32.c" || exit 1
    for linker in bfd gold lld mold; do
        link="$compiler"
        case $compiler-$linker in
        gcc-mold) link="gcc -B/usr/libexec/mold" ;;
        *) link="$compiler -fuse-ld=$linker" ;;
        esac
        for mode in "" -static; do
            name="$compiler $linker $mode"
            works "$name, own function" $link $mode rule.o ask.o $LOGSHIP_LIBS
            works "$name, the lesson's crc32" $link $mode literal.o $LOGSHIP_LIBS
            for libraries in "-lz $LOGSHIP_LIBS" "$LOGSHIP_LIBS -lz" "$z_static $LOGSHIP_LIBS" \
                "$LOGSHIP_LIBS $z_static"; do
                [ -z "$mode" ] || libraries=${libraries//-Wl,-Bdynamic/}
                works "$name, zlib" $link $mode beside_zlib.o zlib_part.o $libraries
                works "$name, zlib alone" $link $mode only_zlib.o only_part.o $libraries
                works "$name, own crc32_init" $link $mode own_init.o $libraries
            done
        done
        for other in plain lto abort; do
            object=two.o
            [ "$other" != abort ] || object=two_quiet.o
            works "$compiler $linker, beside Rust, $other" $link $object other_$other.a $LOGSHIP_LIBS
            works "$compiler $linker, before Rust, $other" $link $object $LOGSHIP_LIBS other_$other.a -lpthread -ldl -lm
        done
    done
    works "$compiler -flto, own function" $compiler -flto $flags "$work/rule.c" "$work/ask.c" $LOGSHIP_LIBS
    gcc-ar rcs libown.a rule.o
    works "$compiler, own function in an archive" \
        $compiler ask.o -Wl,--whole-archive libown.a -Wl,--no-whole-archive $LOGSHIP_LIBS
done
# The canary: what docs/linking.md says is not seen is not seen, and this script would say so.
before=$failed
works "in an archive" gcc ask.o libown.a $LOGSHIP_LIBS 2>/dev/null
if [ "$failed" -gt "$before" ]; then failed=$before; passed=$((passed + 1)); else failed=$((failed + 1)); fi
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
