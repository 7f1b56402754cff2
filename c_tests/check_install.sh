#!/bin/bash
# Installs logship into directories of its own and builds programs with nothing but what is there. Called by
# `make install-test`, with CC and LOGSHIP_BIN in the environment; what it needs (cmake, pkg-config, libz) that names.
#
# Each check is a function. The first one that fails ends the script with its name and output.
set -u
here=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/.." && pwd)
CC=${CC:-gcc}
CXX=${CXX:-g++}
C_FLAGS="-std=c11 -Wall -Wextra -Wpedantic -Werror"
CXX_FLAGS="-std=c++17 -Wall -Wextra -Wpedantic -Werror"
# A make inside a make shares its job server and flags, which are no concern of these.
unset MAKEFLAGS MFLAGS MAKELEVEL PKG_CONFIG_PATH LD_LIBRARY_PATH DESTDIR

work=$(mktemp -d "${TMPDIR:-/tmp}/logship-install-XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# The tree that most checks use was moved.
pkg-config() {
    command pkg-config --define-prefix "$@"
}

names_a_path_of_this_machine() {
    grep -nE "$work|$root|${CARGO_TARGET_DIR:-$root/target}|$HOME/" "$@"
}

# What is there, relative to a directory.
files_in() {
    (cd "$1" && find . ! -type d | sort)
}

install_into_destdir() {
    local dest=$work/dest
    make -s -C "$root" install DESTDIR="$dest" PREFIX=/usr libdir=/usr/lib/somewhere || return 1
    [ "$(ls "$dest")" = usr ] || { echo "outside /usr: $(ls "$dest")"; return 1; }
    local file
    for file in include/logship/logship.h include/logship/w09/kv_store.h include/logship/w10/crc32.h \
        include/logship/w11/repl_ship.h lib/somewhere/liblogship.a lib/somewhere/liblogship.so \
        lib/somewhere/pkgconfig/logship.pc lib/somewhere/cmake/logship/logship-config.cmake bin/logship \
        share/man/man1/logship.1 share/man/man3/logship.3 share/bash-completion/completions/logship \
        share/zsh/site-functions/_logship share/fish/vendor_completions.d/logship.fish \
        share/logship/grade/checks/check.h share/doc/logship/LICENSE-MIT share/doc/logship/docs/linking.md; do
        [ -s "$dest/usr/$file" ] || { echo "$file is missing or empty"; return 1; }
    done
    # No header beside other libraries' headers, every header installed.
    [ "$(ls "$dest/usr/include")" = logship ] && diff -r "$root/include" "$dest/usr/include/logship" || return 1
    ! names_a_path_of_this_machine "$dest"/usr/lib/somewhere/pkgconfig/* "$dest"/usr/lib/somewhere/cmake/logship/* \
        "$dest"/usr/share/man/man?/* || return 1
    ! grep -rn '@[A-Z]*@' "$dest/usr/lib/somewhere/pkgconfig" "$dest/usr/lib/somewhere/cmake" "$dest/usr/share/man" ||
        return 1
    PKG_CONFIG_LIBDIR=$dest/usr/lib/somewhere/pkgconfig
    local include
    include=$(PKG_CONFIG_LIBDIR=$PKG_CONFIG_LIBDIR command pkg-config --variable=includedir logship)
    [ "$include" = /usr/include/logship ] || { echo "includedir is $include"; return 1; }
    # Nothing that would stand before another package's directories.
    make -s -C "$root" install DESTDIR="$work/system" PREFIX=/usr || return 1
    local libs
    libs=$(PKG_CONFIG_LIBDIR=$work/system/usr/lib/pkgconfig command pkg-config --libs logship)
    [ "${libs% }" = -llogship ] || { echo "libs is $libs"; return 1; }
}

uninstall_leaves_nothing() {
    local dest=$work/dest left
    mkdir -p "$dest/usr/share/logship"
    touch "$dest/usr/lib/somebody-elses.so" "$dest/usr/share/logship/somebody-elses"
    make -s -C "$root" uninstall DESTDIR="$dest" PREFIX=/usr libdir=/usr/lib/somewhere || return 1
    left=$(files_in "$dest")
    [ "$left" = "./usr/lib/somebody-elses.so
./usr/share/logship/somebody-elses" ] || { echo "left: $left"; return 1; }
    rm "$dest/usr/share/logship/somebody-elses"
    make -s -C "$root" uninstall DESTDIR="$dest" PREFIX=/usr libdir=/usr/lib/somewhere || return 1
    left=$(find "$dest" -name '*logship*')
    [ -z "$left" ] || { echo "left: $left"; return 1; }
}

# As root often has it: what was built is installed.
install_without_cargo() {
    make -s -C "$root" install CARGO=no-such-cargo PREFIX="$work/without" &&
        diff -r "$root/include" "$work/without/include/logship" && [ -s "$work/without/lib/liblogship.a" ]
}

# Installed in one place and moved to another: whatever is built from now on shows that no path was taken along.
install_and_move() {
    make -s -C "$root" install PREFIX="$work/first place" || return 1
    mv "$work/first place" "$work/prefix"
    export PKG_CONFIG_PATH=$work/prefix/lib/pkgconfig
    grep -qx "version = \"$(pkg-config --modversion logship)\"" "$root/Cargo.toml" &&
        cp -r "$here/install" "$work/programs"
}

exported() {
    nm -D --defined-only --with-symbol-versions "$1" | awk '$2 != "A" { print $3 }' | sort
}
wanted() {
    sed -n 's/^        \([a-z].*\);/\1@@LOGSHIP_0/p' "$root/packaging/logship.map" | sort
}

# The list itself is compared with the headers by tests/packaging.rs.
shared_library_exports_the_list() {
    local library=$work/prefix/lib/liblogship.so.0 name
    diff <(wanted) <(exported "$library") || return 1
    [ "$(wanted | wc -l)" -gt 50 ] || { echo "the list is short"; return 1; }
    for name in crc32 crc32_init kv_hash read_full recv_full send_full write_full; do
        ! exported "$library" | grep -x "$name@.*" || return 1
    done
    readelf -d "$library" | grep -q 'SONAME.*\[liblogship\.so\.0\]' || { echo "soname"; return 1; }
    readelf -d "$library" | grep -q NODELETE || { echo "dlclose would unload it"; return 1; }
    readelf -d "$library" | grep -q 'BIND_NOW\|FLAGS.*NOW' || { echo "not bound at start"; return 1; }
    ! readelf -d "$library" | grep -E 'RPATH|RUNPATH|TEXTREL' || return 1
    readelf -lW "$library" | grep -q GNU_RELRO && ! readelf -lW "$library" | grep 'GNU_STACK.*E'
}

# The static one shows what the headers declare, so that another Rust library's symbols are no concern of it; and it has
# no bitcode, which a linker plugin reads instead of the symbols when the index is made anew.
static_library_shows_the_list() {
    local library=$work/prefix/lib/liblogship.a copy=$work/ranlib.a
    nm -g --defined-only "$library" 2>/dev/null | awk 'NF == 3 { print $3 }' | sort >"$work/shown"
    { sed -n 's/^        \([a-z].*\);/\1/p' "$root/packaging/logship.map" |
        sed -E 's/^logship_(crc32_init|kv_hash|(read|recv|send|write)_full)$/\1/' && echo crc32 &&
        echo logship_crc32_from; } | sort | diff - "$work/shown" || return 1
    ! readelf -SW "$library" | grep -E '\.llvm(bc|cmd)' || return 1
    cp "$library" "$copy" && ranlib "$copy" && diff <(nm -s "$library" 2>/dev/null | sed -n '/^Archive index/,/^$/p') \
        <(nm -s "$copy" 2>/dev/null | sed -n '/^Archive index/,/^$/p') || return 1
    printf 'create %s\naddlib %s\nsave\nend\n' "$work/bundle.a" "$library" | ar -M &&
        [ "$(nm -s "$work/bundle.a" 2>/dev/null | grep -c ' in logship.o')" -gt 50 ]
}

# A library that exports more must be told from it: cargo's own does.
a_library_that_exports_more_is_seen() {
    ! diff -q <(wanted) <(exported "${CARGO_TARGET_DIR:-$root/target}/release/liblogship.so") >/dev/null
}

# The variables hold several words each, so they are left unquoted.
# shellcheck disable=SC2086
programs_with_pkg_config() {
    cd "$work/programs" || return 1
    local cflags libs static
    cflags=$(pkg-config --cflags logship)
    libs=$(pkg-config --libs logship)
    static=$(pkg-config --libs logship-static)
    $CC $C_FLAGS $cflags -o c_shared program.c $libs && LD_LIBRARY_PATH=$work/prefix/lib ./c_shared || return 1
    readelf -d c_shared | grep -q 'NEEDED.*\[liblogship\.so\.0\]' || { echo "not linked by its soname"; return 1; }
    $CC $C_FLAGS $cflags -o c_static program.c $static && ./c_static || return 1
    ! readelf -d c_static | grep 'NEEDED.*liblogship' || return 1
    # libc's resolver warns about -static; what counts is that it links and runs.
    $CC $C_FLAGS $cflags -static -o c_all_static program.c $(pkg-config --static --libs logship) 2>/dev/null &&
        ./c_all_static || return 1
    cp program.c program.cpp
    $CXX $CXX_FLAGS $cflags -o cpp_shared program.cpp $libs && LD_LIBRARY_PATH=$work/prefix/lib ./cpp_shared || return 1
    $CXX $CXX_FLAGS $cflags -o cpp_static program.cpp $static && ./cpp_static || return 1
}

# shellcheck disable=SC2086
generic_names_are_the_programs() {
    cd "$work/programs" || return 1
    local libs flag
    libs=$(pkg-config --libs logship)
    $CC -shared -fPIC -o libelsewhere.so elsewhere.c || return 1
    for flag in -pie -no-pie -Wl,--as-needed -Wl,--no-as-needed; do
        $CC $C_FLAGS $flag -o generic generic_names.c $libs -L. -lelsewhere -Wl,-rpath,"$PWD" &&
            LD_LIBRARY_PATH=$work/prefix/lib ./generic || { echo "with $flag"; return 1; }
    done
    ! nm -D --defined-only generic | grep -E ' (crc32_init|kv_hash|read_full|recv_full|send_full)$'
}

programs_with_cmake() {
    cd "$work/programs" || return 1
    local program
    cmake -S . -B build -DCMAKE_PREFIX_PATH="$work/prefix" -DWANTED=0.1 -DCMAKE_C_COMPILER="$CC" &&
        cmake --build build || return 1
    for program in c_shared c_static cpp_shared cpp_static generic_names; do
        (cd build && "./$program") || { echo "$program"; return 1; }
    done
    # A version that this one is not.
    local other
    for other in 0.2 1.0 0.1.99 0.0.1; do
        ! cmake -S . -B "build-$other" -DCMAKE_PREFIX_PATH="$work/prefix" -DWANTED=$other >/dev/null 2>&1 ||
            { echo "version $other was found"; return 1; }
    done
}

# shellcheck disable=SC2086
zlib_in_the_same_program() {
    cd "$work/programs" || return 1
    local cflags static shared libraries z="-Wl,-Bstatic -lz -Wl,-Bdynamic"
    cflags=$(pkg-config --cflags logship)
    static="$(pkg-config --variable=libdir logship)/liblogship.a -lpthread -ldl -lm"
    shared="$(pkg-config --libs logship) -Wl,-rpath,$work/prefix/lib"
    for libraries in "$shared -lz" "-lz $shared" "$shared $z" "$z $shared" "-lz $static" "$static -lz" "$z $static"; do
        rm -f beside.gz
        $CC $C_FLAGS $cflags -o beside beside_zlib.c zlib_part.c $libraries && ./beside && gzip -t beside.gz ||
            { echo "with $libraries"; return 1; }
    done
    # Where only zlib calls its crc32, it may stand anywhere.
    for libraries in "$static $z" "$z $static" "$static -lz"; do
        rm -f beside.gz
        $CC $C_FLAGS $cflags -DONLY_ZLIB_CALLS_ITS_OWN -o beside beside_zlib.c zlib_part.c $libraries && ./beside &&
            gzip -t beside.gz || { echo "with zlib alone and $libraries"; return 1; }
    done
}

# Also when its use of ours has been weakened once more, as `logship grade` does with its copy.
the_lessons_own_crc32() {
    cd "$work/programs" || return 1
    local archive
    objcopy --weaken-symbol=logship_crc32 --weaken-symbol=crc32 "$work/prefix/lib/liblogship.a" weakened.a || return 1
    for archive in "$work/prefix/lib/liblogship.a" weakened.a; do
        # shellcheck disable=SC2086
        $CC $C_FLAGS -o own_crc32 own_crc32.c "$archive" -lpthread -ldl -lm && ./own_crc32 || return 1
    done
}

# shellcheck disable=SC2086
a_lesson_with_the_installed_tree() {
    mkdir "$work/lesson" && cp -r "$here"/test_util.h "$here"/w10 "$here"/w11 "$work/lesson" || return 1
    cd "$work/lesson/w11" || return 1
    $CC $C_FLAGS $(pkg-config --cflags logship) -o repl_rejoin_test repl_rejoin_test.c \
        $(pkg-config --libs logship) || return 1
    LD_LIBRARY_PATH=$work/prefix/lib ./repl_rejoin_test 2>/dev/null >actual &&
        "$here/compare_expected.sh" repl_rejoin_test <actual
}

manual_pages() {
    local page problems
    for page in "$work"/prefix/share/man/man?/logship*.?; do
        problems=$(groff -mandoc -Tutf8 -ww -z "$page" 2>&1) && [ -z "$problems" ] || { echo "$problems"; return 1; }
    done
    # A page with a mistake is seen: an unknown macro.
    problems=$(printf '.TH A 1 2026 b\n.NOSUCH\n' | groff -mandoc -Tutf8 -ww -z 2>&1)
    [ -n "$problems" ] || { echo "groff says nothing about a mistake"; return 1; }
    # The page's own example.
    cd "$work/programs" || return 1
    sed -n '/^\.Sh EXAMPLES/,/^\.Ed/p' "$work/prefix/share/man/man3/logship.3" | grep -v '^\.\|^Write' >example.c
    # shellcheck disable=SC2046
    $CC $C_FLAGS $(pkg-config --cflags logship) -o example example.c $(pkg-config --libs logship) &&
        LD_LIBRARY_PATH=$work/prefix/lib ./example
}

the_command() {
    [ "$("$work/prefix/bin/logship" --version)" = "logship $(pkg-config --modversion logship)" ] || return 1
    bash -n "$work/prefix/share/bash-completion/completions/logship" &&
        grep -q logship "$work/prefix/share/zsh/site-functions/_logship" \
            "$work/prefix/share/fish/vendor_completions.d/logship.fish"
}

# docs/linking.md: its files are written, its sh blocks run in order in one shell. `make` is run where the Makefile is.
linking_page() {
    local page=$work/page
    mkdir -p "$page/home" "$page/tree" && cd "$page" || return 1
    ln -s "$root/include" tree/include
    ln -s "${CARGO_TARGET_DIR:-$root/target}" tree/target
    awk -v root="$root" '
        /^```sh$/ { kind = "sh"; next }
        /^```(c|c\+\+|cmake)$/ { kind = "file"; path = ""; next }
        /^```$/ { if (kind == "file") close(path); kind = ""; next }
        /^```/ { print "an unknown kind of block: " $0 >"/dev/stderr"; exit 1 }
        kind == "file" && path == "" { path = $2 }
        kind == "file" { print >path }
        kind == "sh" { sub(/^make /, "make -s -C \"$root\" "); print >"commands.sh" }
    ' "$root/docs/linking.md" || return 1
    [ "$(grep -c . commands.sh)" -gt 25 ] && [ -s city.c ] && [ -s CMakeLists.txt ] ||
        { echo "blocks were not found"; return 1; }
    # Cargo finds its own things by HOME.
    CARGO_HOME=${CARGO_HOME:-$HOME/.cargo} RUSTUP_HOME=${RUSTUP_HOME:-$HOME/.rustup} HOME=$page/home \
        LOGSHIP=$page/tree root=$root env -u PKG_CONFIG_PATH bash -eux commands.sh || return 1
    [ -z "$(find home -name '*logship*')" ] || { find home -name '*logship*'; return 1; }
}

uninstall_the_moved_tree() {
    make -s -C "$root" uninstall PREFIX="$work/prefix" || return 1
    [ -z "$(files_in "$work/prefix")" ] || { files_in "$work/prefix"; return 1; }
}

[ $# -gt 0 ] || set -- install_into_destdir uninstall_leaves_nothing install_without_cargo install_and_move \
    shared_library_exports_the_list static_library_shows_the_list a_library_that_exports_more_is_seen programs_with_pkg_config generic_names_are_the_programs programs_with_cmake \
    zlib_in_the_same_program the_lessons_own_crc32 a_lesson_with_the_installed_tree manual_pages the_command \
    linking_page uninstall_the_moved_tree
passed=0
for check in "$@"; do
    (set -o pipefail; "$check") >"$work/output" 2>&1 && status=0 || status=$?
    if [ "$status" -ne 0 ]; then
        cat "$work/output" >&2
        echo "install-test: $check FAILED" >&2
        echo "$passed passed, 1 failed"
        exit 1
    fi
    [ "$check" != install_and_move ] || export PKG_CONFIG_PATH=$work/prefix/lib/pkgconfig
    echo "install-test: $check ok"
    passed=$((passed + 1))
done
echo "$passed passed, 0 failed"
