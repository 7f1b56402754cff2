#!/bin/sh
# Makes what cargo has built a C library: GENERIC_NAMES="..." finish_static.sh liblogship.a
#
# - One object, of what the functions of the headers need, in which nothing else can be seen: a second Rust library in
#   the same program, of another rustc or optimised as one unit, has symbols of the same names (rust_eh_personality), and
#   each keeps its own, its way of panicking too. --force-group-allocation, since the linker would keep one of two equal
#   groups.
# - The functions of the headers are weak in it, so that a program's own win.
# - No bitcode: with LLVM's linker plugin installed, ranlib and `ar s` read that instead of the object, and the index is
#   lost.
#
# The object of the lesson's plain `crc32` (crc32.S) stays by itself, and as it is: objcopy weakens uses of a name too,
# and that object's use of logship_crc32 must bring the library into the program.
#
# Cargo links target/release/liblogship.a to a file under deps/ and makes the link anew in every build, so that file is
# written in place. It keeps its time, else cargo builds every test anew.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
archive=$(realpath -- "$1")
work=$(mktemp -d "${TMPDIR:-/tmp}/logship-static-XXXXXX")
trap 'rm -rf "$work"' EXIT
# gcc's ar, nm and so on: the plain ones load whatever linker plugin is installed, and a clang's makes them lose
# symbols.
gcc-ar t "$archive" >"$work/members"
grep -qx 'logship.o' "$work/members" && exit 0
crc32=$(grep -x '[0-9a-f]*-crc32\.o' "$work/members")
# The headers' functions, under the names that the lessons give them.
sed -n 's/^        \([a-z].*\);/\1/p' "$here/logship.map" >"$work/exported"
# shellcheck disable=SC2086
printf '%s\n' $GENERIC_NAMES >"$work/generic"
sed 's/^/logship_/' "$work/generic" | grep -vxFf - "$work/exported" | cat - "$work/generic" >"$work/weak"
# What std asks of libc only if it is there: ld -r forgets that of uses that it drops, and then the name is missing in a
# program with a second std.
gcc-nm "$archive" 2>/dev/null | awk '$1 == "w" { weak[$2] } $1 == "U" { strong[$2] }
    END { for (name in weak) if (!(name in strong)) print name }' >"$work/if_there"
# And what crc32.S calls.
{ cat "$work/weak" && echo logship_crc32_from; } >"$work/seen"
cp "$archive" "$work/plain.a"
cd "$work"
gcc-ar x plain.a "$crc32"
mv "$crc32" crc32.o
# GNU ld, whatever the program is linked with: it can make one object of many and drop what nothing needs.
# shellcheck disable=SC2046
ld.bfd -r --force-group-allocation --gc-sections $(sed 's/^/-u /' seen) -o whole.o plain.a
objcopy -R .llvmbc -R .llvmcmd \
    --keep-global-symbols=seen --weaken-symbols=weak --weaken-symbols=if_there whole.o logship.o
gcc-ar rcsD liblogship.a logship.o crc32.o
touch -r "$archive" time
cat liblogship.a >"$archive"
touch -r time "$archive"
