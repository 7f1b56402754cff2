#!/usr/bin/env bash
# make test and make test-all: gate.sh test|test-all, with CARGO, CC, MAKE and TARGET in the environment.
#
# `test` has a test for every promise and is done in minutes: it builds with the profile `gate`, and the C programs are
# linked with that library. `test-all` has all of that and the rest: the tests with a long run (in Rust those marked
# `#[ignore]`, with the reason), and the C programs with the library as it is released.
set -u
cd "$(dirname "$0")/.."
which=$1
CARGO=${CARGO:-cargo}
MAKE=${MAKE:-make}
TARGET=${TARGET:-${CARGO_TARGET_DIR:-target}}
# A make inside a step has nothing to do with the flags of the make that has called this.
unset MAKEFLAGS MFLAGS MAKELEVEL
. tests/steps.sh

GATE_LIBS="$TARGET/gate/liblogship.a -lpthread -ldl -lm"

build() {
    "$CARGO" test --profile gate --no-run && "$MAKE" gate-lib
}

rust_tests() {
    if [ "$which" = test ]; then
        "$CARGO" test --profile gate --no-fail-fast
    else
        "$CARGO" test --profile gate --no-fail-fast -- --include-ignored
    fi
}

# Lints and Rust tests need cargo's lock, one after the other; C programs wait for deadlines, so those run beside them.
quick() {
    step "formatted" "$CARGO" fmt --check
    step "build" build || return
    (
        step "lints" "$CARGO" clippy --quiet --profile gate --all-targets -- -D warnings
        step "Rust tests" rust_tests
    ) &
    (
        export LOGSHIP_LIBS=$GATE_LIBS
        step "C programs of our own" c_tests/run_own.sh
    ) &
    (
        export LOGSHIP_LIBS=$GATE_LIBS
        step "the lessons' programs" c_tests/run_lessons.sh
        step "headers in every standard and order" c_tests/check_header_forms.sh
        step "a program's own functions are reached" c_tests/run_replaced.sh reach
    ) &
    wait
}

# With the released library, which takes a minute or two to build.
rest() {
    step "rustdoc" "$MAKE" docs
    step "release build" "$MAKE" package || return
    (
        step "C programs, release, static" "$MAKE" c-test-static
        step "plain C and logship side by side" "$MAKE" oracle
        step "each file and each pair replaced" "$MAKE" c-test-replaced
        step "every linker, zlib, another Rust library" "$MAKE" linker-test
    ) &
    (
        step "C programs, release, shared" "$MAKE" c-test-shared
        step "installing" "$MAKE" install-test
        step "sanitizers" "$MAKE" asan
        step "valgrind" "$MAKE" valgrind
    ) &
    wait
    step "a minute of chaos" "$MAKE" chaos SECONDS=60
    step "builds with a mistake" "$MAKE" canaries
}

quick
if [ "$which" = test ]; then
    left "the C programs with the released library, static and shared (make c-test)"
    left "each file and each pair of files replaced (make c-test-replaced), plain C beside logship (make oracle)"
    left "every linker, zlib, another Rust library (make linker-test)"
    left "installing (make install-test), sanitizers (make asan), valgrind (make valgrind), rustdoc (make docs)"
    left "a minute of chaos (make chaos), builds with a mistake (make canaries)"
else
    rest
fi
summary
