# Copyright (C) the ngx_http_llm_stream_module authors
# SPDX-License-Identifier: BSD-2-Clause

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS   += --no-builtin-rules --no-print-directory

.DELETE_ON_ERROR:
.SECONDARY:
.DEFAULT_GOAL := help

BUILD        ?= build
FUZZ_SECONDS ?= 60
PORT         ?= 8080
ONCE         ?=
JOBS         ?= 2
T            ?= $(filter-out t/docs.t,$(sort $(wildcard t/*.t)))

ifeq ($(origin CC),default)
CC := gcc
endif

export BUILD

# gcc's files lie in $(BUILD) itself, another compiler's in a folder of its own

comma   := ,
ccname  := $(notdir $(firstword $(CC)))
bin     := $(BUILD)$(if $(filter gcc,$(ccname)),,/$(ccname))

# SANITIZE=1 is set by "make asan", with clang: its runtime is one library
# for both sanitizers, whose reports all go where they are looked for.  nginx
# and the module both have an ngx_modules: the last option lets ASan tell them
# apart, or else it takes nginx's for as small as the module's.

sanitize := -fsanitize=address,undefined -fno-omit-frame-pointer
globals  := -fsanitize-address-use-odr-indicator
variant  := $(ccname)$(if $(SANITIZE),-asan)

# nginx: Debian's, unpacked under $(BUILD), or the tree given by NGINX_SRC,
# of which a copy is built, so that nothing is ever written into it

ifdef NGINX_SRC
tree  := $(abspath $(NGINX_SRC))
out   := $(BUILD)/$(notdir $(tree))-$(firstword $(shell cksum <<< $(tree)))
src   := $(abspath $(out))/src
NGINX ?= $(out)/nginx
else
out   := $(BUILD)
src   := $(abspath $(BUILD))/nginx/usr/share/nginx/src
NGINX ?= $(BUILD)/nginx/usr/sbin/nginx
endif

# nginx takes a variable of this name for the sockets of its predecessor

unexport NGINX

obj     := $(abspath $(out))/obj-$(variant)
name    := ngx_http_llm_stream_module
module  := $(out)$(if $(SANITIZE),/asan)/$(name).so
sources := $(name).c $(sort $(wildcard src/*/*.[ch]))

# Debian's nginx has a file of flags; a plain tree gets the same features,
# and HTTP/3 where it has that

flags   := --with-compat --with-debug --with-threads --with-pcre-jit \
           --with-http_ssl_module --with-http_v2_module \
           --with-http_auth_request_module --with-http_realip_module \
           --with-http_slice_module --with-http_stub_status_module \
           --with-http_dav_module --with-http_gunzip_module \
           --with-http_addition_module --with-http_sub_module \
           $(if $(wildcard $(src)/src/http/v3 $(tree)/src/http/v3),\
               --with-http_v3_module) \
           --prefix=$(abspath $(out))/prefix

cc_opt  := -O2 -g -fPIC $(if $(SANITIZE),-O1 $(sanitize) $(globals))

# a sanitized module must use its own ngx_modules, not nginx's of that name:
# ASan knows the sizes of the former only

ld_opt  := -fPIC $(if $(SANITIZE),$(sanitize) -Wl$(comma)-Bsymbolic)

# V=1 shows the commands in full

say      = $(if $(V),,@echo '$(1)';)

locked   = flock $(BUILD)/.lock $(MAKE)


##   help      this text
.PHONY: help
help:
	@sed -n 's/^## \{0,1\}//p' Makefile


# ---- the module -----------------------------------------------------------

##   build     the module: build/ngx_http_llm_stream_module.so
##             (NGINX_SRC=dir: against another nginx source tree; CC=clang)
.PHONY: build
build: deps-build
	@$(locked) $(module) $(if $(SANITIZE),,$(if $(NGINX_SRC),$(out)/nginx))
	@echo "build: $(module)"

.PHONY: deps-build
deps-build:
	@tools/install-deps build $(if $(NGINX_SRC),,nginx)

.PHONY: FORCE
FORCE:

# everything that asks for a new configure when it changes

$(obj)/inputs: FORCE
	@mkdir -p $(obj) $(dir $(module))
	@$(if $(NGINX_SRC),$(copy-tree))
	@{ echo '$(CC) $(cc_opt) $(ld_opt) $(flags) $(sources)'; \
	   cat $(src)/src/core/nginx.h; } > $@.new
	@if cmp -s $@.new $@; then rm $@.new; else mv $@.new $@; fi

define copy-tree
	mkdir -p $(src); \
	for name in auto conf configure contrib man src; do \
	    if [ -e $(tree)/$$name ]; then \
	        cp -a -u $(tree)/$$name $(src)/; \
	    fi; \
	done
endef

# Debian's source and a release have ./configure, a repository auto/configure

$(obj)/Makefile: $(obj)/inputs config config.make $(name).map
	@echo "configuring nginx $$(sed -n \
	    's/^#define NGINX_VERSION *"\(.*\)"/\1/p' \
	    $(src)/src/core/nginx.h), $(variant)"
	@cd $(src); \
	NGX_CONF_FLAGS=($(flags)); \
	if [ -e conf_flags ]; then . ./conf_flags; fi; \
	configure=./configure; \
	if [ ! -e $$configure ]; then configure=auto/configure; fi; \
	ASAN_OPTIONS=detect_leaks=0 $$configure "$${NGX_CONF_FLAGS[@]}" \
	    --with-cc='$(CC)' --with-cc-opt='$(cc_opt)' \
	    --with-ld-opt='$(ld_opt)' --builddir=$(obj) \
	    --add-dynamic-module=$(CURDIR) > $(obj)/configure.log 2>&1 \
	|| { tail -n 20 $(obj)/configure.log; rm -f $@; exit 1; }
	@touch $@

# a running nginx keeps the old file: the new one gets the name in one step

.PHONY: objects
objects: $(obj)/Makefile
	@$(MAKE) $(if $(V),,-s) -C $(src) -f $(obj)/Makefile modules

$(module): objects
	@if ! cmp -s $(obj)/$(name).so $@; then \
	    cp $(obj)/$(name).so $@.new; \
	    mv $@.new $@; \
	fi

$(out)/nginx: $(obj)/Makefile FORCE
	@$(MAKE) -s -j$(JOBS) -C $(src) -f $(obj)/Makefile binary
	@if ! cmp -s $(obj)/nginx $@; then \
	    cp $(obj)/nginx $@.new; \
	    mv $@.new $@; \
	fi


# ---- the tools ------------------------------------------------------------

##   tools     build/llm-sim, a simulated inference server, and
##             build/llm-load, a load generator for streams
tool_names := $(sort $(notdir $(patsubst %/,%,$(dir \
              $(wildcard tools/llm-*/*.c)))))
tool_flags := -std=gnu11 -O2 -g -Wall -Wextra -Werror -Itools/common

.PHONY: tools tools-locked
tools: deps-build
	@$(locked) tools-locked

tools-locked: $(addprefix $(bin)/,$(tool_names))
	@:

$(bin)/obj/tools/%.o: tools/%.c
	@mkdir -p $(@D)
	$(call say,$(ccname) $<)$(CC) $(tool_flags) -MMD -MP -c -o $@ $<

tool_objs = $(patsubst %.c,$(bin)/obj/%.o,$(sort \
            $(wildcard tools/$(1)/*.c) $(wildcard tools/common/*.c)))

define tool
$(bin)/$(1): $(call tool_objs,$(1))
	$$(call say,link $$@)$$(CC) -o $$@ $$^ -lyajl -lm
endef

$(foreach t,$(tool_names),$(eval $(call tool,$(t))))


# ---- unit tests and fuzzing of src/core, without nginx --------------------

core        := $(sort $(wildcard src/core/*.c))
core_warn   := -Wall -Wextra -Wno-unused-parameter -Werror
core_san    := $(sanitize) -fno-sanitize-recover=all
unit_flags  := -O1 -g $(core_warn) $(core_san) -Isrc/core -It/unit
unit_tests  := $(patsubst t/unit/%.c,$(bin)/unit/%,$(sort \
               $(wildcard t/unit/test_*.c)))
unit_core   := $(patsubst src/core/%.c,$(bin)/unit/core/%.o,$(core))

##   unit      the unit tests of src/core, under ASan and UBSan
.PHONY: unit unit-locked
unit: deps-build
	@tools/install-deps perl
	@$(locked) unit-locked
	@test -n "$(unit_tests)" || { echo "no unit tests"; exit 1; }
	@prove --exec '' $(unit_tests)

unit-locked: $(unit_tests)
	@:

$(bin)/unit/core/%.o: src/core/%.c
	@mkdir -p $(@D)
	$(call say,$(ccname) $<)$(CC) $(unit_flags) -MMD -MP -c -o $@ $<

$(bin)/unit/test_%.o: t/unit/test_%.c
	@mkdir -p $(@D)
	$(call say,$(ccname) $<)$(CC) $(unit_flags) -MMD -MP -c -o $@ $<

$(bin)/unit/test_%: $(bin)/unit/test_%.o $(unit_core)
	$(call say,link $@)$(CC) $(core_san) -o $@ $^ -lyajl -lm

##   fuzz      each parser's fuzzer, FUZZ_SECONDS=60 each
fuzz_san    := $(core_san) -fsanitize=fuzzer-no-link
fuzz_flags  := -O1 -g $(core_warn) -Isrc/core -It/fuzz
fuzz_names  := $(patsubst t/fuzz/fuzz_%.c,%,$(sort \
               $(wildcard t/fuzz/fuzz_*.c)))
fuzz_bins   := $(addprefix $(BUILD)/fuzz/fuzz_,$(fuzz_names))
fuzz_core   := $(patsubst src/core/%.c,$(BUILD)/fuzz/core/%.o,$(core))

.PHONY: fuzz fuzz-smoke fuzz-locked
fuzz: deps-build
	@tools/install-deps clang
	@$(locked) fuzz-locked
	@t/fuzz-run $(FUZZ_SECONDS) $(fuzz_names)

fuzz-smoke:
	@$(MAKE) fuzz FUZZ_SECONDS=3

fuzz-locked: $(fuzz_bins)
	@:

$(BUILD)/fuzz/core/%.o: src/core/%.c
	@mkdir -p $(@D)
	$(call say,clang $<)clang $(fuzz_flags) $(fuzz_san) -MMD -MP \
	    -c -o $@ $<

$(BUILD)/fuzz/fuzz_%.o: t/fuzz/fuzz_%.c
	@mkdir -p $(@D)
	$(call say,clang $<)clang $(fuzz_flags) $(fuzz_san) -MMD -MP \
	    -c -o $@ $<

$(BUILD)/fuzz/fuzz_%: $(BUILD)/fuzz/fuzz_%.o $(fuzz_core)
	$(call say,link $@)clang $(core_san) -fsanitize=fuzzer \
	    -o $@ $^ -lyajl -lm


# ---- tests ----------------------------------------------------------------

##   style     the style check
.PHONY: style
style:
	@tools/install-deps perl
	@t/style

##   docs      the check of README.md, conf.example and the includes
.PHONY: docs
docs:
	@tools/install-deps perl
	@prove t/docs.t

##   suites    the Test::Nginx suites (T=t/x.t: only this one); those that
##             measure time have the machine to themselves; those of Redis
##             once more with Valkey, where the release has it
timed      = t/balance_tokens.t t/failover.t t/queue.t t/queue_live.t t/wait.t
valkey     = $(abspath $(BUILD))/valkey/usr/bin/valkey-server
by_redis   = $(filter-out t/redis_scripts.t t/redis_policy_script.t,\
             $(filter t/redis%.t,$(T)))
tests_env  = TEST_NGINX_BINARY=$(abspath $(NGINX)) \
             TEST_LLM_MODULE=$(abspath $(module)) \
             TEST_LLM_SIM=$(abspath $(bin))/llm-sim \
             TEST_LLM_BUILD=$(abspath $(BUILD)) \
             TEST_LLM_SOURCE=$(src)/src TEST_LLM_OBJ=$(obj)

.PHONY: suites
suites: build tools
	@tools/install-deps perl suites redis
	@test -n "$(T)" || { echo "no suites"; exit 1; }
	@failed=; export $(tests_env); \
	for run in '-j$(JOBS) $(filter-out $(timed),$(T))' \
	           '-j1 $(filter $(timed),$(T))'; do \
	    [[ $$run != *.t* ]] || prove -It/lib $$run || failed=1; \
	done; \
	if [ -n '$(by_redis)' ] && [ -x $(valkey) ]; then \
	    echo 'with Valkey:'; export TEST_LLM_REDIS=$(valkey); \
	    prove -It/lib -j$(JOBS) $(by_redis) || failed=1; \
	fi; \
	test -z "$$failed"

##   failover  1,000 requests to three servers of which one is well
.PHONY: failover
failover: build tools
	@tools/install-deps perl suites
	@$(tests_env) FAILOVER_REQUESTS=1000 prove -It/lib t/failover.t

##   redis-mutations  10,000 spoiled replies of Redis; the suites have 400
.PHONY: redis-mutations
redis-mutations:
	@MUTATIONS=10000 $(MAKE) suites T=t/redis_mutations.t

##   asan      build/asan/ngx_http_llm_stream_module.so, with ASan and
##             UBSan, and the suites run with it
.PHONY: asan
asan:
	@tools/install-deps clang
	@$(if $(NGINX_SRC),$(MAKE) build)
	@$(MAKE) CC=clang SANITIZE=1 build
	@t/asan-run $(abspath $(out))/asan $(abspath $(NGINX)) \
	    $(MAKE) CC=clang SANITIZE=1 suites

##   clients   the real clients (npm), t/clients
.PHONY: clients
clients: build tools
	@tools/install-deps clients
	@cd t/clients; $(tests_env) npm test

# warnings are errors: everything once more, with the other compiler

.PHONY: clang
clang: deps-build
	@tools/install-deps clang
	@$(locked) CC=clang objects tools-locked

##   test      all of it: style, docs, unit tests, fuzzers on their seeds,
##             gcc and clang, suites, clients
.PHONY: test
test:
	@t/run-all '$(MAKE)' style docs unit fuzz-smoke build clang run-once \
	    bench-once suites clients


# ---- running --------------------------------------------------------------

##   run       nginx with conf.example on 127.0.0.1:8080 before two simulated
##             servers (PORT=n: another port, ONCE=1: end after one answer)
.PHONY: run
run: build tools
	@tools/install-deps run
	@tools/run '$(NGINX)' '$(module)' '$(bin)/llm-sim' '$(PORT)' '$(ONCE)'

.PHONY: run-once
run-once:
	@$(MAKE) run PORT=0 ONCE=1

##   bench     the benchmarks
.PHONY: bench
bench: build tools
	@test -x bench/run || { echo "there is no bench/run yet"; exit 1; }
	@$(tests_env) bench/run

##   bench-balance  balancers before simulated inference servers, side by
##             side; options are in bench/balance (TRACE=file, ...)
.PHONY: bench-balance bench-once
bench-balance: build tools
	@tools/install-deps perl
	@$(tests_env) bench/balance

bench-once: build tools
	@tools/install-deps perl
	@$(tests_env) REQUESTS=80 FLEETS=4h LOADS=0.5 \
	    BALANCERS='least_conn,tokens+affinity' bench/balance table
	@bench/pick/run --limit 500
	@$(tests_env) ROUNDS=1 TURNS=1 TOKENS=50 bench/streams cpu

##   bench-redis  budgets that two nginx share in Redis, in six minutes
.PHONY: bench-redis
bench-redis: build tools
	@tools/install-deps perl redis
	@$(tests_env) bench/redis

##   bench-streams  memory, latency, CPU time and instructions of streams,
##             beside stock nginx
.PHONY: bench-streams
bench-streams: build tools
	@$(tests_env) bench/streams

##   bench-peers  CPU time and instructions of an event, beside stock nginx,
##             HAProxy, and nginx with Lua and cjson (Debian's packages)
.PHONY: bench-peers
bench-peers: build tools
	@tools/install-deps perl peers
	@$(tests_env) bench/streams cpu instructions

##   minutes   the three clocks, the heartbeat and a client that reads nothing
##             at the scale of minutes
.PHONY: minutes
minutes: build tools
	@tools/install-deps perl suites clients
	@$(tests_env) prove -It/lib t/slow/minutes.t
	@cd t/clients; $(tests_env) ZERO_WINDOW_MS=60000 node --test \
	    --test-name-pattern 'no window for a while' mass.test.mjs


##   clean     removes build/
.PHONY: clean
clean:
	rm -rf $(BUILD)


-include $(shell find $(BUILD) -type f -name '*.d' 2>/dev/null)
