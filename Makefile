# Every command of the project. The gate is `make test`, which .ci/run calls; `make test-all` is the long run beside it.
#
# CARGO_TARGET_DIR is heeded, so nothing here says `target/` itself.
SHELL := /bin/bash
CARGO ?= cargo
CC ?= gcc
TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))
RELEASE := $(TARGET)/release
STATIC_LIBS := $(RELEASE)/liblogship.a -lpthread -ldl -lm
GATE_LIBS := $(TARGET)/gate/liblogship.a -lpthread -ldl -lm
# The shared library as it is installed: with a soname, exporting what the headers declare, no more.
SHARED_LIBS := -L$(TARGET)/staging -llogship -Wl,-rpath,$(TARGET)/staging -lpthread
VALGRIND := valgrind -q --leak-check=full --show-leak-kinds=all --errors-for-leak-kinds=definite,indirect,possible \
    --trace-children=yes --error-exitcode=99
SANITIZE := -std=c11 -Wall -Wextra -g -O1 -fsanitize=address,undefined -fno-sanitize-recover=all

.PHONY: all demo test test-all tools lib gate-lib rust-test c-test c-test-static c-test-shared c-test-replaced \
    check-headers headers fmt-check clippy docs valgrind asan bench faults chaos canaries clean

all: lib

tools:
	@CARGO="$(CARGO)" packaging/setup.sh --look demo

lib: tools
	$(CARGO) build --release --lib
	CC="$(CC)" GENERIC_NAMES="$(GENERIC_NAMES)" packaging/finish_static.sh $(RELEASE)/liblogship.a

# The same, quickly built: without optimisation across crates. What tests are linked with.
gate-lib: tools
	$(CARGO) build --profile gate --lib
	CC="$(CC)" GENERIC_NAMES="$(GENERIC_NAMES)" packaging/finish_static.sh $(TARGET)/gate/liblogship.a

# The lesson's rejoin program, linked with our library in place of the course's .c files: its seven lines. Then what to
# try next: the README's programs, in $(TARGET)/demo.
demo:
	@CARGO="$(CARGO)" packaging/setup.sh demo
	@echo "building the library: half a minute, the first time" >&2
	@$(CARGO) build --profile gate --lib
	@CC="$(CC)" LOGSHIP_LIBS="$(GATE_LIBS)" packaging/demo.sh $(TARGET)/demo

# A test for every promise, in minutes; and all there is. tests/gate.sh has the steps of both.
test test-all:
	@CARGO="$(CARGO)" packaging/setup.sh $@
	@CARGO="$(CARGO)" CC="$(CC)" MAKE="$(MAKE)" TARGET="$(TARGET)" tests/gate.sh $@

rust-test:
	@CARGO="$(CARGO)" packaging/setup.sh --look test
	$(CARGO) test --profile gate

c-test: c-test-static c-test-shared c-test-replaced oracle
	c_tests/check_header_forms.sh

c-test-replaced: lib
	LOGSHIP_LIBS="$(STATIC_LIBS)" c_tests/run_replaced.sh
	LOGSHIP_LIBS="$(STATIC_LIBS)" c_tests/run_alone.sh

# Every linker and compiler of Debian 12, beside zlib and another Rust library: docs/linking.md has the table. Minutes.
.PHONY: linker-test
linker-test: lib
	LOGSHIP_LIBS="$(STATIC_LIBS)" c_tests/run_linkers.sh

c-test-static: lib
	LOGSHIP_LIBS="$(STATIC_LIBS)" c_tests/run_lessons.sh
	LOGSHIP_LIBS="$(STATIC_LIBS)" c_tests/run_own.sh

c-test-shared: package-libs
	LOGSHIP_LIBS="$(SHARED_LIBS)" c_tests/run_lessons.sh
	LOGSHIP_LIBS="$(SHARED_LIBS)" SKIP_OWN="literal_headers wal_enospc durable failing_calls" c_tests/run_own.sh

# Are the committed headers what src/capi says?
check-headers: tools
	$(CARGO) test --no-default-features --quiet --test headers

# Writes them anew.
headers: tools
	LOGSHIP_WRITE_HEADERS=1 $(CARGO) test --no-default-features --quiet --test headers the_committed_headers_are_fresh

fmt-check: tools
	$(CARGO) fmt --check

clippy: tools
	$(CARGO) clippy --profile gate --all-targets -- -D warnings

docs: tools
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps

# 0 errors and 0 leaks, forked followers included.
valgrind: lib
	@packaging/setup.sh --look test
	LOGSHIP_LIBS="$(STATIC_LIBS)" TEST_RUNNER="$(VALGRIND)" c_tests/run_lessons.sh wal_full_test repl_full_test repl_rejoin_test
	LOGSHIP_LIBS="$(STATIC_LIBS)" TEST_RUNNER="$(VALGRIND)" c_tests/run_own.sh lifecycle

# The C programs with AddressSanitizer and UndefinedBehaviorSanitizer.
asan: lib
	LOGSHIP_LIBS="$(STATIC_LIBS)" CFLAGS="$(SANITIZE)" c_tests/run_lessons.sh
	LOGSHIP_LIBS="$(STATIC_LIBS)" CFLAGS="$(SANITIZE)" CXXFLAGS="-g -O1 -fsanitize=address,undefined" \
	    c_tests/run_own.sh

# Both libraries side by side, and what the machine can do, in one table. It judges nothing; RUNS=1 for a quick look.
bench: lib
	LOGSHIP_LIBS="$(STATIC_LIBS)" CARGO="$(CARGO)" c_tests/run_bench.sh

# What happens between real processes when things break: stopped, killed, cut off, bits flipped. It takes minutes, and
# prints what it measures; black holes need root. FAULTS_FLAP_SECONDS=60 for the long run of a link that flaps.
faults: lib
	LOGSHIP_LIBS="$(STATIC_LIBS)" c_tests/run_faults.sh

# Real faults on real processes, by a seed: docs/chaos.md. SECONDS, SEED; LOCAL=1: without what takes root.
SECONDS ?= 60
SEED ?= 1
chaos: tools
	@$(CARGO) build --quiet --release --example chaos
	@$(RELEASE)/examples/chaos --seconds $(SECONDS) --seed $(SEED) $(if $(LOCAL),--local)

# Two builds with a mistake each. A test must fail that passes without it; the drill must see the second one too.
canaries: tools
	TARGET="$(TARGET)" CARGO="$(CARGO)" tests/canaries.sh

clean:
	$(CARGO) clean

# A student's files by the checks of the lessons, docs/grading.md: make grade STUDENT=DIR [GRADE="--json --no-valgrind"]
.PHONY: grade
grade: tools
	@test -n "$(STUDENT)" || { echo "make grade STUDENT=DIR" >&2; exit 1; }
	@$(CARGO) build --quiet --release
	@GENERIC_NAMES="$(GENERIC_NAMES)" packaging/finish_static.sh $(RELEASE)/liblogship.a
	@$(RELEASE)/logship grade $(GRADE) --checks grade/checks --lib $(RELEASE)/liblogship.a --include include "$(STUDENT)"

# Plain C and logship in one program, doing the same things from the same seeds: c_tests/oracle/README.md. Without SECONDS and
# SEED it does the same each time, and mistakes in plain C must be noticed.
.PHONY: oracle
oracle: lib
	LOGSHIP_LIBS="$(STATIC_LIBS)" c_tests/run_oracle.sh $(if $(filter command,$(origin SECONDS)),--seconds $(SECONDS)) \
	    $(if $(filter command,$(origin SEED)),--seed $(SEED))

include packaging/install.mk
