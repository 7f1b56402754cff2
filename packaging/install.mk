# Installing logship as C libraries are installed: make install PREFIX=/usr/local DESTDIR=, make uninstall.
#
# The directories have the GNU names and may be given one by one. What goes where stands in packaging/install.sh.
PREFIX ?= /usr/local
DESTDIR ?=
prefix ?= $(PREFIX)
bindir ?= $(prefix)/bin
libdir ?= $(prefix)/lib
includedir ?= $(prefix)/include
datadir ?= $(prefix)/share
mandir ?= $(datadir)/man
docdir ?= $(datadir)/doc/logship

VERSION := $(shell sed -n 's/^version = "\(.*\)"$$/\1/p' Cargo.toml | head -n 1)
SONAME := liblogship.so.$(firstword $(subst ., ,$(VERSION)))
# Exported with logship_ before them: tests/packaging.rs compares this line with the headers.
GENERIC_NAMES := crc32_init kv_hash read_full recv_full send_full write_full

# What is installed and not a file of the source tree.
PACKAGE := $(TARGET)/staging
LOGSHIP_BIN ?= $(RELEASE)/logship
SHARED_LIB := $(PACKAGE)/liblogship.so.$(VERSION)
NONSHARED_LIB := $(PACKAGE)/liblogship_nonshared.a
# Each subcommand of the command has a page.
MAN_PAGES := grade demo wal wal-dump wal-verify wal-truncate wal-repair checkpoint checkpoint-show
# -z nodelete: what a library keeps for its threads and in its mappings would be lost in each dlclose(3).
PACKAGE_FLAGS := -Wl,-z,nodelete -Wl,-z,now -Wl,-z,relro -Wl,-z,defs -Wl,-z,noexecstack -Wl,--gc-sections \
    -Wl,--strip-debug

.PHONY: install uninstall install-test package package-libs map crate

# The shared library is made of the static one. It calls its own functions, whatever a program defines
# (-Bsymbolic-functions): a program that replaces some of them links the static library. liblogship.so, which only a
# linker reads, is a text: it names the library and the program's own part of it, as glibc's libc.so does.
package-libs: lib
	@mkdir -p $(PACKAGE)
	$(CC) -shared -o $(SHARED_LIB) -Wl,-soname,$(SONAME) -Wl,--version-script,packaging/logship.map \
	    $(foreach name,$(GENERIC_NAMES),-Wl,--defsym,logship_$(name)=$(name)) -Wl,-Bsymbolic-functions \
	    $(PACKAGE_FLAGS) -Wl,--whole-archive $(RELEASE)/liblogship.a -Wl,--no-whole-archive \
	    -lgcc_s -lpthread -lm -ldl -lc
	ln -sf $(notdir $(SHARED_LIB)) $(PACKAGE)/$(SONAME)
	rm -f $(NONSHARED_LIB)
	for name in $(GENERIC_NAMES); do \
	    $(CC) -c -DNAME=$$name -o $(PACKAGE)/$$name.o packaging/nonshared.S || exit 1; \
	done
	gcc-ar rcD $(NONSHARED_LIB) $(patsubst %,$(PACKAGE)/%.o,$(GENERIC_NAMES))
	printf '/* GNU ld script */\nINPUT(%s %s)\n' $(notdir $(NONSHARED_LIB)) $(SONAME) >$(PACKAGE)/liblogship.so

# The command, its manual page and what a shell completes, which it prints itself.
package: package-libs
	$(if $(filter $(RELEASE)/logship,$(LOGSHIP_BIN)),$(CARGO) build --release --bin logship)
	$(LOGSHIP_BIN) man >$(PACKAGE)/logship.1
	for name in $(MAN_PAGES); do $(LOGSHIP_BIN) man $$name >$(PACKAGE)/logship-$$name.1 || exit 1; done
	for shell in bash zsh fish; do $(LOGSHIP_BIN) completions $$shell >$(PACKAGE)/logship.$$shell || exit 1; done

INSTALL_SH = PACKAGE="$(PACKAGE)" RELEASE="$(RELEASE)" LOGSHIP_BIN="$(LOGSHIP_BIN)" VERSION="$(VERSION)" \
    SONAME="$(SONAME)" MAN_PAGES="$(MAN_PAGES)" DESTDIR="$(DESTDIR)" prefix="$(prefix)" bindir="$(bindir)" libdir="$(libdir)" \
    includedir="$(includedir)" datadir="$(datadir)" mandir="$(mandir)" docdir="$(docdir)" packaging/install.sh

# `make package` and then `sudo make install` works too: root often has no cargo, and installs what was built.
install: $(if $(shell command -v $(CARGO)),package)
	@test -e $(PACKAGE)/logship.1 || { echo "nothing is built: make package, with $(CARGO)" >&2; exit 1; }
	@$(INSTALL_SH) install

# Takes away what install puts there from this source tree, with the same directories given.
uninstall:
	@$(INSTALL_SH) uninstall

# Writes packaging/logship.map anew from the headers.
map: tools
	LOGSHIP_WRITE_MAP=1 $(CARGO) test --no-default-features --quiet --test packaging the_version_script

# Installs into directories of its own and builds programs with nothing but what is there.
install-test: package
	@CARGO="$(CARGO)" packaging/setup.sh --look test-all
	CC="$(CC)" LOGSHIP_BIN="$(LOGSHIP_BIN)" c_tests/check_install.sh

# The package for a registry, built from what is in it.
crate: tools
	$(CARGO) package --allow-dirty
