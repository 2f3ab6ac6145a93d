# make demo    the flash sale, with and without the lock
# make test    everything that must hold before a commit lands
# make quick   the inner loop: units, scripts, conformance, lint
# make matrix  what depends on the server or on nginx, on others than this system's: SERVERS="valkey:sid" NGINXES=sid
# make soak    all seeds of the simulation and the long torture: before a change of scripts or protocol lands
# make bench   server time, latency and throughput, beside the raw floor
# make test NGINX=/usr/local/openresty/nginx/sbin/nginx    the same with that nginx; matrix and bench too
# make install    the nginx module; OpenResty: LUA_LIB_DIR=/usr/local/openresty/site/lualib

CARGO ?= cargo
LUA_LIB_DIR ?= /usr/local/share/lua/5.1
export PATH := $(PATH):/usr/sbin:/sbin

.PHONY: demo test quick matrix soak lint bench install deps-demo deps-test scripts

# Packages and suites of Debian.
SERVERS ?= redis:trixie valkey:bookworm-backports valkey:trixie valkey:sid
NGINXES ?= trixie sid
MATRIX = scripts:: conformance:: servers:: client:: topology:: cli::acl cli::doctor nginx::

demo: deps-demo
	$(CARGO) run --bin redlatch -- demo

test: deps-test lint
	$(CARGO) test --lib --bins --test main -- --skip simulation::
	$(CARGO) test --test main simulation::
	$(CARGO) test --doc
	$(MAKE) matrix NGINXES= SERVERS="redis:trixie valkey:trixie" MATRIX="scripts:: conformance:: servers:: client::"

quick: deps-test lint
	$(CARGO) test --lib --bins
	$(CARGO) test --test main -- bundle:: scripts:: conformance:: docs::

matrix: deps-test
	@set -e; for server in $(SERVERS); do \
	  name=$${server%:*}; suite=$${server#*:}; folder=$(CURDIR)/target/servers/$$name-$$suite; \
	  tests/support/other-server $$name $$suite $$folder; \
	  PATH=$$folder/bin:$$PATH $(CARGO) test --test main -- $(MATRIX); \
	done; \
	for suite in $(NGINXES); do \
	  folder=$(CURDIR)/target/servers/nginx-$$suite; \
	  tests/support/other-nginx $$suite $$folder; \
	  NGINX=$$folder/bin/nginx $(CARGO) test --test main -- nginx:: conformance::nginx; \
	done

soak: deps-test
	REDLATCH_SIMULATION_SEEDS=20000 REDLATCH_TORTURE_ACQUISITIONS=1000000 REDLATCH_STATES=10000000 \
	  $(CARGO) test --test main -- simulation:: torture:: exhaustive::

lint: deps-test
	cd lua/scripts && sha1sum -c --quiet SHA1SUMS
	luacheck -q lua src tests
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --quiet
	$(CARGO) run --quiet --bin redlatch -- export --as lua --out lua/lib/resty/redlatch/scripts.lua --check

bench: deps-test
	$(CARGO) bench --bench counts
	$(CARGO) bench --bench pair
	$(CARGO) bench --bench hand_off
	$(CARGO) bench --bench nginx

# After a change of a script that is not released yet: the parts of lua/parts in it, its digest, its copy for nginx.
scripts:
	lua/parts/stamp
	cd lua/scripts && LC_ALL=C sha1sum */*.lua > SHA1SUMS
	$(CARGO) run --quiet --bin redlatch -- export --as lua --out lua/lib/resty/redlatch/scripts.lua

install:
	install -d $(DESTDIR)$(LUA_LIB_DIR)/resty/redlatch
	install -m 644 lua/lib/resty/redlatch.lua $(DESTDIR)$(LUA_LIB_DIR)/resty/
	install -m 644 lua/lib/resty/redlatch/*.lua $(DESTDIR)$(LUA_LIB_DIR)/resty/redlatch/

deps-demo:
	@tests/support/install demo

deps-test:
	@tests/support/install test
