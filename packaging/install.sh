#!/bin/sh
# What is installed where: install.sh install|uninstall, called by packaging/install.mk with the directories in the
# environment. Both ways go through the same list, so that what is put there is what is taken away.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
root=$here/..
what=$1

# put MODE SOURCE FILE, put_link TEXT FILE: FILE is where a user finds it; DESTDIR stands in front of it only here.
# shellcheck disable=SC2317
put() {
    mkdir -p "$(dirname "$DESTDIR$3")"
    install -m "$1" "$2" "$DESTDIR$3"
}
put_link() {
    mkdir -p "$(dirname "$DESTDIR$2")"
    ln -sf "$1" "$DESTDIR$2"
}
# put_filled TEMPLATE FILE: with @NAMES@ filled in. CMake's templates find their neighbours from where they stand, so an
# installed tree may be moved; pkg-config's have the prefix, which it replaces itself where it is told to.
put_filled() {
    mkdir -p "$(dirname "$DESTDIR$2")"
    from=$(dirname "$2")
    sed -e "s|@VERSION@|$VERSION|g" -e "s|@SONAME@|$SONAME|g" \
        -e "s|@ROOT@|$prefix|g" -e "s|@ROOT_LIBDIR@|$(below_prefix "$libdir")|g" \
        -e "s|@ROOT_INCLUDEDIR@|$(below_prefix "$includedir")|g" \
        -e "s|@PREFIX@|$(realpath -ms --relative-to="$from" "$prefix")|g" \
        -e "s|@LIBDIR@|$(realpath -ms --relative-to="$from" "$libdir")|g" \
        -e "s|@INCLUDEDIR@|$(realpath -ms --relative-to="$from" "$includedir")|g" "$1" >"$DESTDIR$2"
    chmod 644 "$DESTDIR$2"
}
# A directory as pkg-config says it: from the prefix, if it is there.
below_prefix() {
    case $1 in
    "$prefix"/*) echo "\${prefix}${1#"$prefix"}" ;;
    *) echo "$1" ;;
    esac
}
# Directories that only logship has files in.
own_directories() {
    printf '%s\n' "$includedir/logship/w09" "$includedir/logship/w10" "$includedir/logship/w11" "$includedir/logship" \
        "$libdir/cmake/logship" "$datadir/logship/grade/checks" "$datadir/logship/grade" "$datadir/logship" "$docdir"
}

case $what in
install) ;;
uninstall)
    put() { rm -f "$DESTDIR$3"; }
    put_link() { rm -f "$DESTDIR$2"; }
    put_filled() { rm -f "$DESTDIR$2"; }
    ;;
*)
    echo "usage: install.sh install|uninstall" >&2
    exit 2
    ;;
esac

# The headers have a directory of their own, so that crc32.h lies beside nobody else's.
for header in "$root"/include/*.h "$root"/include/w*/*.h; do
    put 644 "$header" "$includedir/logship/${header#"$root"/include/}"
done

put 644 "$RELEASE/liblogship.a" "$libdir/liblogship.a"
put 755 "$PACKAGE/liblogship.so.$VERSION" "$libdir/liblogship.so.$VERSION"
put_link "liblogship.so.$VERSION" "$libdir/$SONAME"
put 644 "$PACKAGE/liblogship.so" "$libdir/liblogship.so"
put 644 "$PACKAGE/liblogship_nonshared.a" "$libdir/liblogship_nonshared.a"
put_filled "$here/logship.pc.in" "$libdir/pkgconfig/logship.pc"
put_filled "$here/logship-static.pc.in" "$libdir/pkgconfig/logship-static.pc"
put_filled "$here/logship-config.cmake.in" "$libdir/cmake/logship/logship-config.cmake"
put_filled "$here/logship-config-version.cmake.in" "$libdir/cmake/logship/logship-config-version.cmake"

put 755 "$LOGSHIP_BIN" "$bindir/logship"
for check in "$root"/grade/checks/*.[ch]; do
    put 644 "$check" "$datadir/logship/grade/checks/$(basename "$check")"
done
put 644 "$PACKAGE/logship.1" "$mandir/man1/logship.1"
for page in $MAN_PAGES; do
    put 644 "$PACKAGE/logship-$page.1" "$mandir/man1/logship-$page.1"
done
put_filled "$here/logship.3.in" "$mandir/man3/logship.3"
put 644 "$PACKAGE/logship.bash" "$datadir/bash-completion/completions/logship"
put 644 "$PACKAGE/logship.zsh" "$datadir/zsh/site-functions/_logship"
put 644 "$PACKAGE/logship.fish" "$datadir/fish/vendor_completions.d/logship.fish"

for text in LICENSE-APACHE LICENSE-MIT README.md CHANGELOG.md; do
    put 644 "$root/$text" "$docdir/$text"
done
for text in "$root"/docs/*.md; do
    put 644 "$text" "$docdir/docs/$(basename "$text")"
done

if [ "$what" = uninstall ]; then
    { echo "$docdir/docs"; own_directories; } | while read -r directory; do
        [ ! -d "$DESTDIR$directory" ] || rmdir --ignore-fail-on-non-empty "$DESTDIR$directory"
    done
fi
