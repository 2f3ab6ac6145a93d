# make demo    the flash sale, with and without the lock
# make test    everything that must hold before a commit lands
# make bench   server time, latency and throughput, beside the raw floor
# make install    the nginx module; OpenResty: LUA_LIB_DIR=/usr/local/openresty/site/lualib

CARGO ?= cargo
LUA_LIB_DIR ?= /usr/local/share/lua/5.1
export PATH := $(PATH):/usr/sbin:/sbin

.PHONY: demo test lint bench install deps-demo deps-test scripts

demo: deps-demo
	$(CARGO) run --bin redlatch -- demo

test: deps-test lint
	$(CARGO) test --lib --bins --test main -- --skip simulation::
	$(CARGO) test --test main simulation::
	$(CARGO) test --doc

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

# After a change of a script that is not released yet: its digest and its copy for nginx.
scripts:
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
