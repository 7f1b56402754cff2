#!/bin/sh
# Puts the object that packaging/crc32.S makes into a static library: add_crc32.sh liblogship.a
#
# Cargo links target/release/liblogship.a to a file under deps/ and makes the link anew in every build, so the file is
# changed in place (ar does when it has several names). It keeps its time, else cargo builds every test anew.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
archive=$1
# Names are looked for in what ar prints, not piped: a pipe that grep -q leaves early is an error to ar.
members=$(ar t "$archive")
case $members in *logship_crc32_name.o*) exit 0 ;; esac

work=$(mktemp -d "${TMPDIR:-/tmp}/logship-crc32-XXXXXX")
trap 'rm -rf "$work"' EXIT
touch -r "$archive" "$work/time"
${CC:-gcc} -c -o "$work/logship_crc32_name.o" "$here/crc32.S"
gcc-ar rD "$archive" "$work/logship_crc32_name.o"
touch -r "$work/time" "$archive"
