# mininetes: `make help` says what there is.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SCENARIO ?= quickstart
# Of tests with labs, which wait about as long as they work: one more than there are cores.
WORKERS ?= $(shell echo $$(( $$(nproc) + 1 )))
# What every lab and every measurement needs of the distribution (Debian 12 and 13, Ubuntu 24.04).
PACKAGES := openvswitch-switch mininet iperf3 nftables iptables conntrack iproute2 iputils-ping net-tools ethtool tcpdump curl \
            kmod procps util-linux python3 python3-venv nginx openssl wireguard-tools wireguard-go \
            containernetworking-plugins bird2 frr tshark \
            ipvsadm ipset etcd-server etcd-client wrk vsftpd openssh-server openssh-client
# Labs start their own nginx, BIRD, FRR, etcd, vsftpd and sshd; the distribution's must not take ports and routes of this machine because
# of us. This file is Debian's way to install a service without starting it (invoke-rc.d(8), policy-rc.d); one that is
# there already is left alone.
POLICY ?= /usr/sbin/policy-rc.d
# What builds Ryu, and only without build isolation (setup.cfg says why).
BUILD := setuptools==67.6.1 wheel
# The virtual machine: what makes and runs it, which Debian it is, how long (s) a command may take in it, and the tests that
# `make vm-test` runs: those that need more of a kernel than some build machines have.
VM_PACKAGES := qemu-system-x86 mmdebstrap squashfs-tools-ng debian-archive-keyring uidmap
VM_RELEASE ?= bookworm
VM_LIMIT ?= 3600
TESTS ?= tests/lab/test_stock_kernel.py tests/switch/test_transports.py
NIGHTLY = $(shell sed -n 's/ *\#.*//; /./p' tests/nightly.txt)
VM = $(PYTHON) -m vm --release $(VM_RELEASE) --packages "$(PACKAGES)" --build "$(BUILD)" --limit $(VM_LIMIT)
# The part of the tests that `make test-unprivileged` runs as an ordinary user, whoever calls.
UNPRIVILEGED ?= tests/switch tests/unit/test_standin.py tests/lab/test_agent.py tests/lab/test_cilium.py
OPTIONS := $(if $(CNI),--cni $(CNI)) $(if $(PROXY),--proxy $(PROXY)) $(if $(NODES),--nodes $(NODES)) \
           $(if $(DATAPATH),--datapath $(DATAPATH)) $(if $(LAB),--lab $(LAB)) $(ARGS)

.DEFAULT_GOAL := help
.PHONY: help install packages scenario list test test-unprivileged lint unit switch lab browser nightly bench regression \
        golden vm vm-image vm-scenario vm-test vm-shell vm-tools browser-tools ran clean

help: ## this list
	@echo "mininetes: Kubernetes networking, emulated with real packets on one machine"
	@echo
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1|\2/p' $(firstword $(MAKEFILE_LIST)) | awk -F'|' '{printf "%-24s %s\n", $$1, $$2}'
	@echo
	@echo "  make scenario SCENARIO=name CNI=flannel PROXY=ipvs NODES=3 DATAPATH=netdev|system ARGS='--repeats 5'"

install: packages $(VENV)/.installed ## distribution packages and the virtual environment (needs sudo once)

# apt-get runs only if something is missing, so that everything else works without sudo once it is there.
packages:
	@missing=""; for p in $(PACKAGES); do \
	  dpkg-query -W -f '$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ]; then \
	  if [ "$$(id -u)" != 0 ]; then echo "not installed:$$missing. Run: sudo make install" >&2; exit 2; fi; \
	  echo "installing$$missing"; \
	  served=""; for p in nginx bird2 frr etcd-server vsftpd openssh-server; do \
	    case "$$missing " in *" $$p "*) p=$${p%2}; p=$${p#open}; served="$$served $${p%-server}";; esac; done; \
	  if [ "$$served" ] && [ ! -e $(POLICY) ]; then \
	    trap 'rm -f $(POLICY)' EXIT; \
	    printf '#!/bin/sh\ncase "$$1" in nginx*|bird*|frr*|etcd*|vsftpd*|ssh*) exit 101;; esac\n' > $(POLICY) && chmod 755 $(POLICY); \
	  fi; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing \
	    > /var/log/mininetes-apt.log 2>&1 || { tail -n 20 /var/log/mininetes-apt.log >&2; exit 1; }; \
	  for p in $$served; do \
	    update-rc.d $$p disable >> /var/log/mininetes-apt.log 2>&1 || true; \
	    systemctl disable $$p.socket >> /var/log/mininetes-apt.log 2>&1 || true; done; \
	fi

$(VENV)/.installed: setup.cfg pyproject.toml
	@echo "making the virtual environment $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install -q --disable-pip-version-check $(BUILD)
	@$(BIN)/pip install -q --disable-pip-version-check --no-build-isolation -e '.[test]'
	@touch $@
	@if [ -n "$$SUDO_UID" ]; then chown -R "$$SUDO_UID:$$SUDO_GID" $(VENV) *.egg-info; fi

scenario: install ## run a scenario (SCENARIO=quickstart), print and save its results
	@$(BIN)/mininetes run $(SCENARIO) $(OPTIONS)

list: install ## scenarios, CNIs, proxy modes, and what this kernel can do
	@$(BIN)/mininetes list

# Tests with whole labs side by side keep the cores busy, and some measure time. What fails there is shown, and decides only if it
# fails by itself too; a run that broke off has nothing to repeat and fails (pytest's status 5).
test: install lint ## all checks and tests
	@$(BIN)/pytest -q -n $(WORKERS) --dist loadfile --junitxml=.cache/reports/host.xml tests || { \
	  echo "again, one after the other: what failed"; \
	  $(BIN)/pytest -q --last-failed --last-failed-no-failures none tests; }; status=$$?; \
	if [ -n "$$SUDO_UID" ]; then chown -R "$$SUDO_UID:$$SUDO_GID" .cache .*_cache; fi; exit $$status  # whoever called goes on without sudo

# Called by root, that user is who called sudo, or nobody, who may write to no checkout: only the report is theirs.
test-unprivileged: install ## some of the tests as an ordinary user (a minute)
	@mkdir -p .cache/reports && : > .cache/reports/unprivileged.xml
	@if [ -n "$$SUDO_UID" ]; then chown -R "$$SUDO_UID:$$SUDO_GID" .cache; \
	elif [ "$$(id -u)" = 0 ]; then chown 65534 .cache/reports/unprivileged.xml; fi
	@PYTHONDONTWRITEBYTECODE=1 $(BIN)/python tests/ordinary_user.py $(BIN)/python -m pytest -q -p no:cacheprovider \
	  -n $(WORKERS) --dist loadfile --junitxml=.cache/reports/unprivileged.xml $(UNPRIVILEGED)

lint: install ## ruff and mypy
	@$(BIN)/ruff check -q . && $(BIN)/ruff format -q --check . && $(BIN)/mypy --no-error-summary

unit: install ## only the tests that need no root and no switch (seconds)
	@$(BIN)/pytest -q -n 2 tests/unit

switch: install ## only the tests against one private Open vSwitch
	@$(BIN)/pytest -q tests/switch

lab: install ## only the tests with whole labs
	@$(BIN)/pytest -q -n $(WORKERS) --dist loadfile tests/lab

# Not part of `make test`: a browser is 300 MB, and what else there is of the report is tested without it.
browser-tools:
	@command -v chromium > /dev/null || $(MAKE) --no-print-directory packages PACKAGES=chromium

browser: install browser-tools ## look at report.html in a real browser (installs chromium; needs sudo once)
	@$(BIN)/pytest -q tests/unit/test_report_html.py

# What takes too long for `make test`; a CI runs it at night.
nightly: VM_LIMIT = 14400
nightly: install vm-tools ## what needs the machine's kernel and time, and 500 steps of chaos (an hour and more)
	@$(VM) test $(TESTS) $(NIGHTLY)
	@$(BIN)/mininetes run chaos --option steps=500 $(OPTIONS)

# Of the machine only the image is kept, under .cache/vm/; docs/vm.md says more.
vm-tools:
	@$(MAKE) --no-print-directory packages PACKAGES="$(VM_PACKAGES)"

vm: vm-tools ## a Debian machine with its own kernel and this checkout: make it, boot it, look (VM_RELEASE=trixie for another)
	@$(VM) run .venv/bin/mininetes doctor

vm-image: vm-tools ## only make the image, so that what follows need not
	@$(VM) image

vm-scenario: vm-tools ## run a scenario in it; results come back
	@$(VM) run .venv/bin/mininetes run $(SCENARIO) $(OPTIONS)

vm-test: vm-tools ## run tests in it (TESTS='tests/lab/test_dns.py -x'); default: those that need its kernel
	@$(VM) test $(TESTS)

vm-shell: vm-tools ## a prompt in it
	@$(VM) shell

ran: ## which tests ran on what, and whether any ran nowhere (after make test and make vm-test)
	@$(PYTHON) -m vm ran

bench: install ## benchmarks against their goals
	@$(BIN)/python -m benchmarks $(ARGS)

regression: install ## did a path become slower than results/baseline/ says (minutes)
	@$(BIN)/pytest -q benchmarks/regression $(ARGS)

golden: install ## rewrite the golden flow listings, after showing what changes
	@MININETES_GOLDEN=write $(BIN)/pytest -q -s tests/unit/test_golden.py tests/unit/test_kernel_ipvs.py

clean: ## remove the virtual environment and caches (not results)
	@rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
