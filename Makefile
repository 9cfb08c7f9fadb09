# Quark: `make run` shows it, `make test` proves it.
ARCH ?= $(shell uname -m)
PREFIX ?= /usr/local
OUT := out/$(ARCH)

KERNEL_TARGET_x86_64 := x86_64-unknown-none
KERNEL_TARGET_aarch64 := aarch64-unknown-none-softfloat
KERNEL_TARGET := $(KERNEL_TARGET_$(ARCH))
HOST_TARGET := $(ARCH)-unknown-linux-musl
ifeq ($(KERNEL_TARGET),)
$(error ARCH=$(ARCH) is not supported: x86_64 or aarch64)
endif

# A RUSTFLAGS from outside silently replaces the per-target flags of .cargo/config.toml.
unexport RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_RUSTFLAGS CARGO_BUILD_TARGET
export PATH := $(PATH):$(HOME)/.cargo/bin
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)

.PHONY: all run test test-full bench install clean toolchain

all: toolchain
	cargo build --locked --release -p qkernel --bin qkernel --target $(KERNEL_TARGET)
	cargo build --locked --release -p qvisor --target $(HOST_TARGET)
	install -D -m 755 $(TARGET_DIR)/$(KERNEL_TARGET)/release/qkernel $(OUT)/qkernel
	install -D -m 755 $(TARGET_DIR)/$(HOST_TARGET)/release/quark $(OUT)/quark

toolchain:
	@scripts/setup-toolchain

run:
	@scripts/demo

test:
	@ci/test

test-full:
	@ci/test --full

bench:
	@ci/bench/run

# Builds nothing, so that `sudo make install` leaves no files of root's in target/.
install:
	@test -x $(OUT)/quark -a -x $(OUT)/qkernel || { echo "nothing built: run make first" >&2; exit 1; }
	install -D -m 755 $(OUT)/quark $(DESTDIR)$(PREFIX)/bin/quark
	install -D -m 755 $(OUT)/qkernel $(DESTDIR)$(PREFIX)/lib/quark/qkernel

clean:
	rm -rf out $(TARGET_DIR)
