# Flash Ladder. `make` alone prints what can be made; `make step 2` builds a step, `./run` runs it.
#
# build/host        the harness, the reference, the checker, the CPU back end: compiled once
# build/emu         kernels for the CPU back end, every memory access watched      (WATCH=1, the default)
# build/emu-fast    the same, not watched and much faster                          (WATCH=0)
# build/cuda-sm_XX  kernels for a GPU
# A name with -64x32 behind it holds kernels built with TILE=64x32.
#
# What a command means (is there a step 5.1? which file is it? is there a GPU?) is found out by common/make/plan.py, which
# also refuses, in a sentence, what can't be meant. Here stand the rules.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SILENT:
.SUFFIXES:
.SECONDARY:
CPUS := $(shell nproc 2>/dev/null || echo 2)
MAKEFLAGS += --no-builtin-rules --no-print-directory
ifeq ($(MAKELEVEL),0)  # a make below shares this one's jobs
  MAKEFLAGS += -j$(CPUS)
endif

TARGETS := help step list test cuda all-cuda sanitize calibrate diff format format-check clean ladder bench counts docs plots \
  figures probe exercises exercise check hint solution watch grade test-exercises \
  test-rest test-bare test-aarch64
.PHONY: $(TARGETS)

ifneq ($(origin CXX),command line)  # the CPU back end needs g++, whatever the environment prefers
  CXX := g++
endif
ifndef NVCC
  NVCC := $(shell command -v nvcc || ls /usr/local/cuda/bin/nvcc 2>/dev/null)
endif

# The plan: LANDINGS (02_online_softmax/online_softmax …), STEP, BACKEND and more, as NAME:=a|b|c. Of what is typed nothing
# is run or expanded on its way there.
unexport N BACKEND WATCH TILE ARCH LADDER BENCH FIGURES CALIBRATE_PARTS
quoted = '$(subst ','\'',$1)'
GIVEN := $(foreach name,N BACKEND WATCH TILE ARCH NVCC TARGETS,$(call quoted,$(name)=$(value $(name))))
# The system's python3 where there is one: it answers in 30 ms, a version manager's takes 100.
PYTHON3 := $(or $(wildcard /usr/bin/python3),python3)
PLAN := $(shell command -v $(PYTHON3) >/dev/null || { echo 'python3 is missing: ./setup installs what is needed.' >&2; exit 1; }; \
  $(PYTHON3) -S -E common/make/plan.py $(GIVEN) -- $(foreach goal,$(MAKECMDGOALS),$(call quoted,$(goal))))
ifneq ($(.SHELLSTATUS),0)
  $(error Nothing is made)
endif
$(foreach variable,$(PLAN),$(eval override $(subst |, ,$(variable))))
# `make step 2`: the 2 is a word, and nothing to make.
$(filter-out $(wildcard $(WORDS)),$(WORDS)):;@:
# Options for a program, as in LADDER="--seqlen 1024".
with = python3 common/make/with_options.py $(call quoted,$1=$(value $1))

# ------------------------------------------------------------------------------------------------- compilers, flags

CXXFLAGS := -std=c++17 -O2 -g -Wall -Wextra -I.
DEPS = -MMD -MP -MF $(@:.o=.d)
KERNEL_FLAGS := -std=c++17 -g -Wall -Wextra -Wno-unknown-pragmas -I.
# Watched kernels: g++'s thread sanitizer turns every load and store into a call, and common/emu answers the calls
# (libtsan is not linked). The other options keep two source lines from being merged into one such call, and a load
# from being moved to where its value is needed, if it ever is (sink).
WATCHED_FLAGS := $(KERNEL_FLAGS) -O2 -DFLASH_WATCH=1 -fsanitize=thread -fsanitize=bounds -Wno-tsan \
  --param tsan-instrument-func-entry-exit=0 -fno-tree-vectorize -fno-tree-slp-vectorize -fno-unroll-loops \
  -fno-optimize-sibling-calls -fno-crossjumping -fno-tree-tail-merge -fno-thread-jumps -fno-code-hoisting -fno-tree-pre -fno-tree-sink
FAST_FLAGS := $(KERNEL_FLAGS) -O3 -DFLASH_WATCH=0
NVCC_FLAGS = -std=c++17 -O3 -lineinfo -Xcompiler -Wall,-Wextra,-fPIC -I. $(NVCC_WERROR) \
  $(foreach arch,$(patsubst sm_%,%,$(or $($*.archs),$(REAL_ARCH))),-gencode arch=compute_$(arch),code=sm_$(arch))
# Kernels whose wgmmas ptxas serialises aren't built; common/tests plants such mistakes.
HEED_PTXAS = $(if $(filter common/tests/%,$<),,sh common/make/heed_ptxas.sh $<)
# Catch2 3 has a library, Catch2 2 is one header.
CATCH_LIB = $(eval CATCH_LIB := $(shell printf '\043if __has_include(<catch2/catch_test_macros.hpp>)\nyes\n\043endif\n' | $(CXX) -std=c++17 -E -P -x c++ - | grep -qx yes && echo -lCatch2))$(CATCH_LIB)

space := $(subst ,, )
HOST := build/host
EMU := build/emu$(TILE:%=-%)
FAST := build/emu-fast$(TILE:%=-%)
PLAIN_CUDA := build/cuda-$(subst $(space),+,$(REAL_ARCH))
CUDA := $(PLAIN_CUDA)$(TILE:%=-%)
# Where this command's kernels go: the back end and WATCH decide.
DIR := $(if $(filter cuda,$(BACKEND)),$(CUDA),$(if $(filter 0,$(WATCH)),$(FAST),$(EMU)))

# ------------------------------------------------------------------------------------------------ objects, programs

host_objects = $(patsubst %.cpp,$(HOST)/%.o,$(wildcard $1))
RUN := $(HOST)/common/run/run.o
HARNESS := $(filter-out $(RUN),$(call host_objects,$(patsubst %,common/%/*.cpp,base problem check device kernel run)))
EMU_BACKEND := $(call host_objects,$(patsubst %,common/emu/%/*.cpp,run watch instructions))
# What a step as a shared library is linked with, for common/bench/peers.py.
LIBRARY := $(patsubst %.cpp,%.pic.o,$(wildcard common/kernel/*.cpp common/device/tensor_layout.cpp common/problem/problem.cpp common/run/forward_step.cpp common/bench/step_library.cpp))
TEST_MAIN := $(HOST)/common/tests/main.o $(HOST)/common/tests/step_tests.o
# Tests with kernels of their own: common/tests/emu_*.cpp for the CPU back end, common/tests/*_test.cu for both; other
# .cu files there hold kernels for them.
CUDA_TESTS := $(patsubst %.cu,%.o,$(wildcard common/tests/*.cu))
EMU_TESTS := $(CUDA_TESTS) $(patsubst %.cpp,%.o,$(wildcard common/tests/emu_*.cpp))
COMMON_TESTS := $(filter-out $(TEST_MAIN) $(EMU_TESTS:%=$(HOST)/%),$(call host_objects,common/tests/*.cpp))

# Catch2's own code takes long to optimise, and no test needs it fast.
$(HOST)/%.o: %.cpp
	mkdir -p $(@D); echo '  g++   $<'
	$(CXX) $(CXXFLAGS) $(if $(filter %test.cpp %/main.cpp,$<),-O0) $(DEPS) -c $< -o $@
$(PLAIN_CUDA)/%.pic.o: %.cpp
	mkdir -p $(@D); $(CXX) $(CXXFLAGS) -fPIC $(DEPS) -c $< -o $@
$(HOST)/common/tests/common.test: $(TEST_MAIN) $(HARNESS) $(EMU_BACKEND) $(COMMON_TESTS)
	$(CXX) -pthread $^ -o $@ $(CATCH_LIB)

# A folder of kernels: NAME.run and NAME.test for each landing, the tests with kernels of their own, and `kernels`, those of
# common/emu/calibrate.
# $1 folder, $2 nothing or a tile size like -64x32, $3 compiler and flags, $4 its name, $5 linker, $6 the back end's objects,
# $7 objects of tests
define kernels
$1$2/%.o: %.cu
	mkdir -p $$(@D); echo '  $4 $$<'
	$3 $$(DEPS) -c $$< -o $$@
$1$2/%.o: %.cpp
	mkdir -p $$(@D); echo '  $4 $$<'
	$3 $$(DEPS) -c $$< -o $$@
$1$2/%.run: $1$2/%.o $(RUN) $(HARNESS) $6
	$5 $$^ -o $$@
$1$2/%.so: $1$2/%.o $(LIBRARY:%=$(PLAIN_CUDA)/%) $6
	$5 -shared $$^ -o $$@
$1$2/%.test: $1$2/%.o $(TEST_MAIN) $(HARNESS) $6
	$5 $$^ -o $$@ $$(CATCH_LIB)
$1$2/common/tests/kernels.test: $(TEST_MAIN) $(HARNESS) $6 $(7:%=$1$2/%)
	$5 $$^ -o $$@ $$(CATCH_LIB)
$1$2/kernels: $(HOST)/common/emu/calibrate/kernels.o $(HARNESS) $6 $1$2/common/tests/watch_kernels.o $1$2/common/tests/async_kernels.o
	$5 $$^ -o $$@
$(foreach landing,$(LANDINGS),$(call beside,$1,$2,$(landing)))
endef
# With landing $3 are linked: in its test its folder's plain C++, and the forward steps (without TILE) of a backward one.
define beside
$1$2/$3.test: $(call host_objects,$(dir $3)*.cpp)
$1$2/$3.run $1$2/$3.test $1$2/$3.so: $(patsubst %,$1/%.o,$($3.forwards))

endef
# $1 nothing or a tile size like -64x32, $2 flags for it
define back_ends
$(eval $(call kernels,build/emu,$1,$(CXX) $(WATCHED_FLAGS) $2 -x c++,g++   (watched),$(CXX) -pthread,$(EMU_BACKEND),$(EMU_TESTS)))
$(eval $(call kernels,build/emu-fast,$1,$(CXX) $(FAST_FLAGS) $2 -x c++,g++  ,$(CXX) -pthread,$(EMU_BACKEND),$(EMU_TESTS)))
$(eval $(call kernels,$(PLAIN_CUDA),$1,$$(HEED_PTXAS) $$(NVCC) $$(NVCC_FLAGS) $2,nvcc ,$$(NVCC),$(patsubst %,$(PLAIN_CUDA)/common/device/%_cuda.o,device tensor_map),$(CUDA_TESTS)))
endef
$(call back_ends)
$(foreach tile,$(TILES),$(call back_ends,-$(tile),-DTILE_M=$(firstword $(subst x, ,$(tile))) -DTILE_N=$(lastword $(subst x, ,$(tile)))))

# A student's file SOURCE in the place of LANDING's kernel: $(OUT)/watched.run, watched.test, fast.run, fast.test.
ifdef SOURCE
$(OUT)/watched.o: $(SOURCE)
	mkdir -p $(@D); $(CXX) $(WATCHED_FLAGS) $(SOURCE_FLAGS) $(DEPS) -x c++ -c $< -o $@
$(OUT)/fast.o: $(SOURCE)
	mkdir -p $(@D); $(CXX) $(FAST_FLAGS) $(SOURCE_FLAGS) $(DEPS) -x c++ -c $< -o $@
forwards := $(patsubst %,build/emu-fast/%.o,$($(LANDING).forwards))
$(OUT)/%.run: $(OUT)/%.o $(RUN) $(HARNESS) $(EMU_BACKEND) $(forwards)
	$(CXX) -pthread $^ -o $@
$(OUT)/%.test: $(OUT)/%.o $(TEST_MAIN) $(HARNESS) $(EMU_BACKEND) $(forwards) $(call host_objects,$(dir $(LANDING))*.cpp)
	$(CXX) -pthread $^ -o $@ $(CATCH_LIB)
endif

-include $(shell find build -name '*.d' 2>/dev/null)

# --------------------------------------------------------------------------------------------------- steps and tests

help:
	sed 's/@BACKEND@/$(BACKEND)/' common/make/help.txt
list:
	python3 common/make/landings.py
clean:
	rm -rf build run

step: $(STEP:%=$(DIR)/%.run)
	ln -sfn $< run
	echo 'Built $(STEP).cu for $(if $(filter cuda,$(BACKEND)),the GPU ($(REAL_ARCH)),the CPU back end$(if $(filter 0,$(WATCH)), (not watched))).  Next: ./run'
diff:
	$(if $(DIFF),python3 common/make/diff_steps.py $(DIFF),echo '$(STEP) is the first step: there is none before it.')

# Tests: all, or those of one step's folder (`make test 2`). A test of all takes of each folder's landings the last without
# watching, and with half of the awkward problems; `make test-rest` takes them all, with all.
TEST_FOLDERS := $(EMU) $(FAST) $(if $(filter cuda,$(BACKEND)),$(CUDA))
TEST_PROGRAMS := $(TESTED:%=$(EMU)/%.test) $(TESTED_UNWATCHED:%=$(FAST)/%.test) \
  $(if $(filter cuda,$(BACKEND)),$(TESTED:%=$(CUDA)/%.test)) $(OTHER_TILE_TESTS)
ifndef STEP
TEST_PROGRAMS += $(TEST_FOLDERS:%=%/common/tests/kernels.test) $(HOST)/common/tests/common.test
PYTHON_TESTS := $(sort $(wildcard common/tests/*_test.py))
# What the tests of the command line and of the documents run.
RUN_PROGRAMS := $(LANDINGS:%=$(EMU)/%.run) $(TESTED_UNWATCHED:%=$(FAST)/%.run)
endif
test: $(TEST_PROGRAMS) $(RUN_PROGRAMS)
	FLASH_FAST=$(FAST) FLASH_EMU=$(EMU) python3 common/tests/run_tests.py $(TEST_PROGRAMS) $(PYTHON_TESTS)

test-rest: $(LANDINGS:%=$(FAST)/%.test)
	FLASH_EVERY_PROBLEM=1 python3 common/tests/run_tests.py $^

# The README's first command on a bare Debian or Ubuntu; SUITE=jammy TESTS=1 and more: common/make/bare.py.
test-bare:
	python3 common/make/bare.py
# The CPU back end built for aarch64, a Mac's container, and run by qemu: common/make/aarch64.py.
test-aarch64:
	python3 common/make/aarch64.py

cuda:
	+$(MAKE) all-cuda BACKEND=cuda NVCC_WERROR='-Werror all-warnings' $(if $(filter command,$(firstword $(origin ARCH))),,ARCH='sm_75 sm_80 sm_90')
	echo 'Every step compiles with nvcc, without a warning.'
all-cuda: $(LANDINGS:%=$(CUDA)/%.run) $(CUDA_TESTS:%=$(CUDA)/%)
sanitize: $(LANDINGS:%=$(CUDA)/%.run)
	sh common/make/sanitize.sh $^
# The CPU back end's counts and faults beside Nsight Compute's and compute-sanitizer's. CALIBRATE_PARTS="patterns steps faults"
calibrate: $(foreach folder,$(EMU) $(CUDA),$(folder)/kernels $(LANDINGS:%=$(folder)/%.run))
	$(call with,CALIBRATE_PARTS) python3 common/emu/calibrate/calibrate.py $(EMU) $(CUDA)

format:
	sh common/make/format.sh
format-check:
	sh common/make/format.sh check

# ------------------------------------------------------------------------------------------------ bench, exercises

# Every step on this machine: times on a GPU, counts on the CPU back end. LADDER="--seqlen 1024": see common/bench/ladder.py.
ladder: $(LANDINGS:%=$(DIR)/%.run)
	$(call with,LADDER) python3 common/bench/ladder.py $^
# BENCH="--seqlens 1024,4096 --reps 3 --peers": see common/bench/bench.py.
bench: $(if $(filter cuda,$(BACKEND)),$(LANDINGS:%=$(CUDA)/%.run) $(if $(findstring --peers,$(value BENCH)),$(LANDINGS:%=$(CUDA)/%.so)))
	$(call with,BENCH) python3 common/bench/bench.py $(filter %.run,$^)
# Into docs/data/, what the pictures and tables need of the CPU back end.
counts: $(foreach folder,$(EMU) $(FAST),$(LANDINGS:%=$(folder)/%.run))
	python3 common/bench/counts.py $(EMU) $(FAST) $(LANDINGS)
# Latencies and bandwidths of this GPU's memories, for docs/memory_hierarchy.md.
probe: $(CUDA)/common/bench/memory_probe.o
	$(NVCC) $< -o $(CUDA)/memory_probe && $(CUDA)/memory_probe
# The tables between <!-- table:… --> marks in the documents, from docs/data/.
docs:
	python3 common/bench/tables.py
# This machine's own pictures, of the last `make ladder`, into build/figures/; `make figures` draws the documents' into
# docs/figures/. Debian's matplotlib belongs to /usr/bin/python3, which needn't be the first in PATH.
PLOT_PYTHON = $(shell for p in python3 /usr/bin/python3; do $$p -c 'import matplotlib' 2>/dev/null && echo $$p && exit; done; echo python3)
plots:
	$(PLOT_PYTHON) common/bench/plots.py
figures:
	$(call with,FIGURES) $(PLOT_PYTHON) common/bench/plots.py documents

# The classroom: common/exercises/exercise.py.
EXERCISE := python3 common/exercises/exercise.py
exercises:
	$(EXERCISE) list
exercise:
	$(EXERCISE) begin $(WORDS)
check hint solution watch:
	$(EXERCISE) $@ $(WORDS)
test-exercises:
	python3 common/exercises/verify.py $(WORDS)
grade:
	python3 common/exercises/grade.py "$$SUBMISSIONS" "$$SEED"
