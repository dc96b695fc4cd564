# Flash Ladder. `make` alone prints what can be made; `make step 2` builds a step, `./run` runs it.
#
# build/host        the harness, the reference, the checker, the CPU back end: compiled once
# build/emu         kernels for the CPU back end, every memory access watched      (WATCH=1, the default)
# build/emu-fast    the same, not watched and much faster                          (WATCH=0)
# build/cuda-sm_XX  kernels for a GPU
# A name with -64x32 behind it holds kernels built with TILE=64x32.

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

# ---------------------------------------------------------------------------------------------- what the user types

TARGETS := help step list test cuda sanitize calibrate diff format format-check clean ladder bench counts docs plots figures probe \
  exercises exercise check hint solution watch grade test-exercises test-bare test-aarch64
WITH_WORDS := step test diff exercise check hint solution watch test-exercises                                            # `make step 2`: the 2 is not a target
ifneq ($(filter $(firstword $(MAKECMDGOALS)),$(WITH_WORDS)),)
  WORDS := $(filter-out $(TARGETS),$(wordlist 2,99,$(MAKECMDGOALS)))
endif
ifdef N
  WORDS := $(N)
endif
# Only letters, digits and a few marks become targets or reach a shell: of anything else a part might be run.
NAME_CHARACTERS := a b c d e f g h i j k l m n o p q r s t u v w x y z A B C D E F G H I J K L M N O P Q R S T U V W X Y Z \
  0 1 2 3 4 5 6 7 8 9 . _ - /
without = $(if $2,$(call without,$(subst $(firstword $2),,$1),$(wordlist 2,99,$2)),$1)
STRANGE := $(strip $(foreach w,$(WORDS),$(if $(call without,$w,$(NAME_CHARACTERS)),$w)))
$(if $(STRANGE),,$(if $(WORDS),$(eval .PHONY: $(WORDS))$(eval $(WORDS):;@:)))
WATCH ?= 1
TILE ?=

# ------------------------------------------------------------------------------------------------------- the steps

folder = $(patsubst %/,%,$(dir $1))
number = $(firstword $(subst _, ,$1))
short = $(patsubst 0%,%,$(call number,$1))
folder_name = $(patsubst $(call number,$1)_%,%,$(call folder,$1))
# 02_online_softmax/online_softmax.cu is the one landing of step 2; 05_tensor_core/1_mma.cu is landing 5.1.
LANDING_NUMBERS := 1 2 3 4 5 6 7 8 9
is_landing = $(filter $(call folder_name,$1) $(LANDING_NUMBERS:%=%_%),$(notdir $1))
LANDINGS := $(sort $(foreach k,$(patsubst %.cu,%,$(wildcard [0-9][0-9]_*/*.cu)),$(if $(call is_landing,$k),$k)))
FOLDERS := $(sort $(foreach l,$(LANDINGS),$(call folder,$l)))
landing_number = $(if $(filter $(call folder_name,$1),$(notdir $1)),,$(call number,$(notdir $1)))
last_of_folder = $(lastword $(filter $1/%,$(LANDINGS)))

# The words that name landing $1: 4 04 04_flash_v2 flash_v2 04_flash_v2/flash_v2; for one of several 5.1 1_mma mma too.
words_of = $(call number,$1) $(call short,$1) $(call folder,$1) $(call folder,$1)/ $(call folder_name,$1) $1 $1.cu \
           $(foreach n,$(call landing_number,$1),$(call number,$1).$n $(call short,$1).$n $(notdir $1) \
             $(patsubst $n_%,%,$(notdir $1)))
find_step = $(lastword $(foreach l,$(LANDINGS),$(if $(filter $1,$(call words_of,$l)),$l)))

# A backward step needs O and LSE: it is linked with the last landings of the two steps before it, which take fp32 and
# the 16-bit types between them.
space := $(subst ,, )
# What stands before $1 in list $2.
before = $(wordlist 2,99,$(subst |, ,$(firstword $(subst |$1|, ,x|$(subst $(space),|,$2)|))))
last_two = $(lastword $(filter-out $(lastword $1),$1)) $(lastword $1)
forwards_for = $(if $(filter %_backward,$1),$(foreach f,$(call last_two,$(call before,$1,$(FOLDERS))),$(call last_of_folder,$f)))

define STEP_LIST
$(foreach l,$(LANDINGS),printf '  make step %-5s %s\n' '$(call short,$l)$(addprefix .,$(call landing_number,$l))' '$l.cu';)
endef

# ------------------------------------------------------------------------------------------------- compilers, flags

ifneq ($(origin CXX),command line)  # the CPU back end needs g++, whatever the environment prefers
  CXX := g++
endif
ifndef NVCC
  NVCC := $(shell command -v nvcc || ls /usr/local/cuda/bin/nvcc 2>/dev/null)
endif
# Compute capabilities of the GPUs in this machine, from 75 up: 75, 90 …
GPUS = $(eval GPUS := $(shell nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | grep -E '^[0-9]+\.[0-9]+$$' | tr -d . | sort -un | grep -Ev '^(3.|5.|6.|70|72)$$'))$(GPUS)
ifeq ($(origin BACKEND),undefined)
  BACKEND = $(eval BACKEND := $(if $(and $(NVCC),$(GPUS)),cuda,emu))$(BACKEND)
endif
ifeq ($(origin ARCH),undefined)
  ARCH = $(eval ARCH := $(or $(GPUS:%=sm_%),sm_80))$(ARCH)
endif
REAL_ARCH = $(patsubst sm_90,sm_90a,$(ARCH))  # 90a: Hopper's own instructions

CXXFLAGS := -std=c++17 -O2 -g -Wall -Wextra -I.
DEPS = -MMD -MP -MF $(@:.o=.d)
# TILE if it is one: nothing but digits and x reaches a rule or a shell.
SOUND_TILE := $(if $(call without,$(TILE),0 1 2 3 4 5 6 7 8 9 x),,$(shell echo '$(TILE)' | grep -Ex '[1-9][0-9]*x[1-9][0-9]*'))
TILE_M := $(firstword $(subst x, ,$(SOUND_TILE)))
TILE_N := $(word 2,$(subst x, ,$(SOUND_TILE)))
TILE_FLAGS := $(if $(SOUND_TILE),-DTILE_M=$(TILE_M) -DTILE_N=$(TILE_N))

# Watched kernels: g++'s thread sanitizer turns every load and store into a call, and common/emu answers the calls
# (libtsan is not linked). The other options keep two source lines from being merged into one such call, and a load
# from being moved to where its value is needed, if it ever is (sink).
KERNEL_FLAGS := -std=c++17 -g -Wall -Wextra -Wno-unknown-pragmas -I.
WATCHED_FLAGS := $(KERNEL_FLAGS) -O2 -DFLASH_WATCH=1 -fsanitize=thread -fsanitize=bounds -Wno-tsan \
  --param tsan-instrument-func-entry-exit=0 -fno-tree-vectorize -fno-tree-slp-vectorize -fno-unroll-loops \
  -fno-optimize-sibling-calls -fno-crossjumping -fno-tree-tail-merge -fno-thread-jumps -fno-code-hoisting -fno-tree-pre -fno-tree-sink
FAST_FLAGS := $(KERNEL_FLAGS) -O3 -DFLASH_WATCH=0
NVCC_FLAGS = -std=c++17 -O3 -lineinfo -Xcompiler -Wall,-Wextra -I. $(NVCC_WERROR) \
  $(foreach a,$(patsubst sm_%,%,$(REAL_ARCH)),-gencode arch=compute_$a,code=sm_$a)

tiled = $(SOUND_TILE:%=-%)
EMU := build/emu$(tiled)
FAST := build/emu-fast$(tiled)
PLAIN_CUDA = build/cuda-$(subst $(space),+,$(strip $(REAL_ARCH)))
CUDA = $(PLAIN_CUDA)$(tiled)
HOST := build/host
# Where this command's kernels go: the back end and WATCH decide.
DIR = $(if $(filter cuda,$(BACKEND)),$(CUDA),$(if $(filter 0,$(WATCH)),$(FAST),$(EMU)))

# --------------------------------------------------------------------------------------------------------- objects

host_objects = $(patsubst %.cpp,$(HOST)/%.o,$1)
HARNESS := $(call host_objects,$(filter-out common/run.cpp,$(wildcard common/*.cpp)))
RUN := $(call host_objects,common/run.cpp)
EMU_BACKEND := $(call host_objects,$(wildcard common/emu/*.cpp))
CUDA_BACKEND = $(PLAIN_CUDA)/common/device_cuda.o $(call host_objects,$(wildcard common/emu/print_report.cpp))

TEST_MAIN := $(call host_objects,common/tests/main.cpp common/tests/step_tests.cpp)
TEST_SOURCES := $(filter-out common/tests/main.cpp common/tests/step_tests.cpp,$(wildcard common/tests/*.cpp))
COMMON_TESTS := $(call host_objects,$(filter-out common/tests/emu_%,$(TEST_SOURCES)))
# Tests with kernels of their own: common/tests/emu_*.cpp for the CPU back end, common/tests/*_test.cu for both; other
# .cu files there hold kernels for them.
KERNEL_TESTS := $(patsubst %.cpp,%.o,$(filter common/tests/emu_%,$(TEST_SOURCES))) $(patsubst %.cu,%.o,$(wildcard common/tests/*.cu))
CUDA_TESTS := $(if $(wildcard common/tests/*_test.cu),$(patsubst %.cu,%.o,$(wildcard common/tests/*.cu)))

# What a step's folder brings to its test beside the kernel: test.cpp, and any plain C++ (03_flash_v1/plain.cpp).
step_tests = $(call host_objects,$(wildcard $(call folder,$1)/*.cpp))

# Catch2's own code takes long to optimise, and no test needs it fast.
$(HOST)/%.o: %.cpp
	mkdir -p $(@D); echo '  g++   $<'
	$(CXX) $(CXXFLAGS) $(if $(filter %test.cpp %/main.cpp,$<),-O0) $(DEPS) -c $< -o $@

# $1 folder, $2 compiler and flags, $3 what to print, $4 the source's ending
define kernel_rule
$1/%.o: %.$4
	mkdir -p $$(@D); echo '  $3 $$<'
	$2 $$(DEPS) -c $$< -o $$@
endef
# $1 ending of the folders' names, $2 flags for the tile size
define kernel_rules
$(foreach ending,cu cpp,$(eval $(call kernel_rule,build/emu$1,$(CXX) $(WATCHED_FLAGS) $2 -x c++,g++   (watched),$(ending))))
$(foreach ending,cu cpp,$(eval $(call kernel_rule,build/emu-fast$1,$(CXX) $(FAST_FLAGS) $2 -x c++,g++  ,$(ending))))
$(if $(NVCC),$(eval $(call kernel_rule,$(PLAIN_CUDA)$1,$$(NVCC) $$(NVCC_FLAGS) $2,nvcc ,cu)))
endef
$(call kernel_rules)
$(if $(SOUND_TILE),$(call kernel_rules,-$(SOUND_TILE),$(TILE_FLAGS)))
# 03 and 04 are tested with tiles of another size as well.
OTHER_TILE := $(if $(TILE),,32x16)
$(if $(OTHER_TILE),$(call kernel_rules,-$(OTHER_TILE),-DTILE_M=32 -DTILE_N=16))

-include $(shell find build -name '*.d' 2>/dev/null)

# -------------------------------------------------------------------------------------------------------- programs

# $1 folder, $2 landing, $3 back end's objects, $4 linker: NAME.run and NAME.test. TILE is for the landing alone, not for
# the forward steps that a backward one is linked with.
step_objects = $1/$2.o $(patsubst %,$(patsubst %-$(SOUND_TILE),%,$1)/%.o,$(call forwards_for,$(call folder,$2)))
define programs
$1/$2.run: $(RUN) $(HARNESS) $3 $(call step_objects,$1,$2)
	$4 $$^ -o $$@
$1/$2.test: $(TEST_MAIN) $(HARNESS) $3 $(call step_objects,$1,$2) $(call step_tests,$2)
	$4 $$^ -o $$@ $$(CATCH_LIB)
endef
# $1 folder, $2 back end's objects, $3 linker, $4 objects of tests with kernels
define all_programs
$(foreach l,$(LANDINGS),$(eval $(call programs,$1,$l,$2,$3)))
$(eval $1/common/tests/kernels.test: $(TEST_MAIN) $(HARNESS) $2 $(patsubst %,$1/%,$4)
	$3 $$^ -o $$@ $$(CATCH_LIB))
endef
$(call all_programs,$(EMU),$(EMU_BACKEND),$(CXX) -pthread,$(KERNEL_TESTS))
$(call all_programs,$(FAST),$(EMU_BACKEND),$(CXX) -pthread,$(KERNEL_TESTS))
OTHER_TILE_TESTS := $(if $(OTHER_TILE),$(patsubst %,build/emu-$(OTHER_TILE)/%.test,$(filter 03_% 04_%,$(LANDINGS))))
$(foreach t,$(OTHER_TILE_TESTS),$(eval $(call programs,build/emu-$(OTHER_TILE),$(t:build/emu-$(OTHER_TILE)/%.test=%),$(EMU_BACKEND),$(CXX) -pthread)))
$(if $(NVCC),$(call all_programs,$(CUDA),$(CUDA_BACKEND),$(NVCC),$(CUDA_TESTS)))
# common/emu/calibrate: the watcher's own test kernels, for Nsight Compute and compute-sanitizer.
CALIBRATE := $(call host_objects,common/emu/calibrate/kernels.cpp) $(HARNESS)
# $1 folder, $2 back end's objects, $3 linker
define calibrate_program
$1/kernels: $(CALIBRATE) $2 $1/common/tests/watch_kernels.o
	$3 $$^ -o $$@
endef
$(eval $(call calibrate_program,$(EMU),$(EMU_BACKEND),$(CXX) -pthread))
$(if $(NVCC),$(eval $(call calibrate_program,$(CUDA),$(CUDA_BACKEND),$(NVCC))))
$(HOST)/common/tests/common.test: $(TEST_MAIN) $(HARNESS) $(EMU_BACKEND) $(COMMON_TESTS)
	$(CXX) -pthread $^ -o $@ $(CATCH_LIB)

# Catch2 3 has a library, Catch2 2 is one header.
CATCH_LIB = $(eval CATCH_LIB := $(shell printf '\043if __has_include(<catch2/catch_test_macros.hpp>)\nyes\n\043endif\n' | $(CXX) -std=c++17 -E -P -x c++ - | grep -qx yes && echo -lCatch2))$(CATCH_LIB)

# --------------------------------------------------------------------------------------------------------- targets

.PHONY: $(TARGETS)

STEP := $(call find_step,$(firstword $(WORDS)))

CHECKED := step test diff ladder bench counts probe
# What is wrong with the command, in a sentence; empty if nothing is.
MISTAKE = $(or \
  $(if $(STRANGE),There is no $(if $(filter step test diff,$(MAKECMDGOALS)),step,exercise) '$(WORDS)'.), \
  $(if $(WORDS),,$(if $(filter step diff,$(MAKECMDGOALS)),Which step? Name it by its number or its name: make $(firstword $(MAKECMDGOALS)) 2)), \
  $(if $(word 2,$(WORDS)),$(if $(filter diff,$(MAKECMDGOALS)),,One step at a time: '$(WORDS)' names more.)), \
  $(if $(word 3,$(WORDS)),make diff compares two steps: '$(WORDS)' names more.), \
  $(strip $(foreach w,$(WORDS),$(if $(call find_step,$w),,There is no step '$w'.))), \
  $(if $(filter-out emu cuda,$(BACKEND)),BACKEND is emu or cuda$(,) not '$(BACKEND)'.), \
  $(if $(filter cuda,$(BACKEND)),$(if $(NVCC),,BACKEND=cuda needs nvcc and there is none here; BACKEND=emu needs g++ alone.)), \
  $(if $(filter-out 0 1,$(WATCH)),WATCH is 0 or 1$(,) not '$(WATCH)'.), \
  $(if $(filter cuda,$(BACKEND)),$(if $(filter-out sm_%,$(ARCH)),ARCH is a GPU architecture like sm_80$(,) not '$(ARCH)'.)), \
  $(if $(TILE),$(if $(SOUND_TILE),,TILE is query rows x keys of a tile$(,) like 64x32$(,) not '$(TILE)'.)), \
  $(if $(TILE),$(if $(filter ladder bench counts,$(MAKECMDGOALS)),make $(firstword $(MAKECMDGOALS)) takes each step with its own tile size; TILE is for make step.)), \
  $(if $(filter 0,$(WATCH)),$(if $(filter ladder,$(MAKECMDGOALS)),$(if $(filter emu,$(BACKEND)),make ladder shows counts on the CPU back end$(,) and with WATCH=0 nothing is counted.))), \
  $(if $(filter cuda,$(BACKEND)),$(if $(filter ladder bench probe,$(MAKECMDGOALS)),$(if $(GPUS),,make $(firstword $(MAKECMDGOALS)) measures a GPU with BACKEND=cuda$(,) and nvidia-smi shows none of compute capability 7.5 or later here.))), \
  $(if $(TILE),$(if $(filter step,$(MAKECMDGOALS)),$(if $(shell grep -l TILE_M $(STEP).cu),,$(STEP) has no tile size to set.))))
, := ,

ifneq ($(filter $(CHECKED),$(MAKECMDGOALS))$(STRANGE),)
ifneq ($(MISTAKE),)
export SENTENCE := $(MISTAKE)
$(if $(STRANGE),$(WITH_WORDS),$(CHECKED)):
	printf '%s\n' "$$SENTENCE" >&2
	$(if $(or $(STEP),$(filter-out step test diff,$@)),,{ echo 'The steps are'; $(STEP_LIST) } >&2)
	exit 2
.DEFAULT:
	:
WRONG := yes
endif
endif

ifndef WRONG
step: $(if $(STEP),$(DIR)/$(STEP).run)
	ln -sfn $< run
	echo 'Built $(STEP).cu for $(if $(filter cuda,$(BACKEND)),the GPU ($(strip $(REAL_ARCH))),the CPU back end$(if $(filter 0,$(WATCH)), (not watched))).  Next: ./run'

# Tests: all, or those of one step's folder (`make test 2`).
TEST_STEPS = $(if $(STEP),$(filter $(call folder,$(STEP))/%,$(LANDINGS)),$(LANDINGS))
TEST_FOLDERS = $(EMU) $(FAST) $(if $(filter cuda,$(BACKEND)),$(CUDA))
KERNEL_TEST_PROGRAMS = $(if $(KERNEL_TESTS),$(EMU) $(FAST)) $(if $(CUDA_TESTS),$(filter build/cuda%,$(TEST_FOLDERS)))
TEST_PROGRAMS = $(foreach d,$(TEST_FOLDERS),$(TEST_STEPS:%=$d/%.test)) \
  $(filter $(TEST_STEPS:%=build/emu-$(OTHER_TILE)/%.test),$(OTHER_TILE_TESTS)) \
  $(if $(STEP),,$(KERNEL_TEST_PROGRAMS:%=%/common/tests/kernels.test) $(HOST)/common/tests/common.test)
# What the tests of the command line and of the documents run.
RUN_PROGRAMS = $(if $(STEP),,$(foreach d,$(EMU) $(FAST),$(LANDINGS:%=$d/%.run)))
test: $(TEST_PROGRAMS) $(RUN_PROGRAMS)
	FLASH_FAST=$(FAST) FLASH_EMU=$(EMU) python3 common/tests/run_tests.py $(TEST_PROGRAMS) $(if $(STEP),,common/tests/cli_test.py common/tests/bench_test.py common/tests/docs_test.py \
	  common/tests/exercises_test.py common/tests/editor_test.py)

# The README's first command on a bare Debian or Ubuntu; SUITE=jammy TESTS=1 and more: common/make/bare.py.
test-bare:
	python3 common/make/bare.py
# The CPU back end built for aarch64, a Mac's container, and run by qemu: common/make/aarch64.py.
test-aarch64:
	python3 common/make/aarch64.py

# Two steps, or one and the landing before it.
DIFF_OLD = $(if $(word 2,$(WORDS)),$(STEP),$(lastword $(call before,$(STEP),$(LANDINGS))))
DIFF_NEW = $(call find_step,$(lastword $(WORDS)))
diff:
	$(if $(DIFF_OLD),python3 common/make/diff_steps.py $(DIFF_OLD).cu $(DIFF_NEW).cu,echo '$(STEP) is the first step: there is none before it.')
endif

cuda:
	$(if $(NVCC),,echo 'make cuda needs nvcc, and there is none here.' >&2; exit 2)
	+$(MAKE) all-cuda BACKEND=cuda NVCC_WERROR='-Werror all-warnings' 'ARCH=$(if $(filter command,$(firstword $(origin ARCH))),$(ARCH),sm_75 sm_80 sm_90)'
	echo 'Every step compiles with nvcc, without a warning.'
.PHONY: all-cuda
all-cuda: $(if $(NVCC),$(LANDINGS:%=$(CUDA)/%.run) $(CUDA_TESTS:%=$(CUDA)/%))

sanitize: $(if $(filter cuda,$(BACKEND)),$(LANDINGS:%=$(CUDA)/%.run))
	$(if $(filter cuda,$(BACKEND)),,echo 'make sanitize needs nvcc and a GPU; on the CPU back end every ./run looks for races and bad accesses.' >&2; exit 2)
	sh common/make/sanitize.sh $^

# The CPU back end's counts and faults beside Nsight Compute's and compute-sanitizer's. CALIBRATE_PARTS="patterns steps faults"
calibrate: $(EMU)/kernels $(LANDINGS:%=$(EMU)/%.run) $(if $(filter cuda,$(BACKEND)),$(CUDA)/kernels $(LANDINGS:%=$(CUDA)/%.run))
	$(if $(filter cuda,$(BACKEND)),,echo 'make calibrate needs nvcc, a GPU, ncu and compute-sanitizer.' >&2; exit 2)
	python3 common/emu/calibrate/calibrate.py $(EMU) $(CUDA) $(CALIBRATE_PARTS)

# ------------------------------------------------------------------------------------------------ bench, exercises

ifndef WRONG
# Every step on this machine: times on a GPU, counts on the CPU back end. LADDER="--seqlen 1024": see common/bench/ladder.py.
ladder: $(LANDINGS:%=$(DIR)/%.run)
	python3 common/bench/ladder.py $^ $(LADDER)
# BENCH="--seqlens 1024,4096 --reps 3 --peers": see common/bench/bench.py.
bench: $(if $(filter cuda,$(BACKEND)),$(LANDINGS:%=$(DIR)/%.run))
	python3 common/bench/bench.py $^ $(BENCH)
# Into docs/data/, what the pictures and tables need of the CPU back end.
counts: $(LANDINGS:%=$(EMU)/%.run) $(LANDINGS:%=$(FAST)/%.run)
	python3 common/bench/counts.py $(EMU) $(FAST) $(LANDINGS)
# Latencies and bandwidths of this GPU's memories, for docs/memory_hierarchy.md.
probe: $(if $(filter cuda,$(BACKEND)),$(CUDA)/common/bench/memory_probe.o)
	$(if $(filter cuda,$(BACKEND)),$(NVCC) $< -o $(CUDA)/memory_probe && $(CUDA)/memory_probe,echo 'make probe measures a GPU, and needs one and nvcc.' >&2; exit 2)
endif
# The tables between <!-- table:… --> marks in the documents, from docs/data/.
docs:
	python3 common/bench/tables.py
# This machine's own pictures, of the last `make ladder`, into build/figures/; `make figures` draws the documents' into
# docs/figures/. Debian's matplotlib belongs to /usr/bin/python3, which needn't be the first in PATH.
PLOT_PYTHON = $(shell for p in python3 /usr/bin/python3; do $$p -c 'import matplotlib' 2>/dev/null && echo $$p && exit; done; echo python3)
plots:
	$(PLOT_PYTHON) common/bench/plots.py
figures:
	$(PLOT_PYTHON) common/bench/plots.py documents $(FIGURES)

# The classroom: common/exercises/exercise.py.
EXERCISE = FORCE="$(FORCE)" python3 common/exercises/exercise.py
exercises:
	$(EXERCISE) list
grade:
	python3 common/exercises/grade.py "$$SUBMISSIONS" "$$SEED"
ifndef WRONG
exercise:
	$(EXERCISE) begin $(WORDS)
check hint solution watch:
	$(EXERCISE) $@ $(WORDS)
test-exercises:
	python3 common/exercises/verify.py $(WORDS)
endif

# A student's file SOURCE in the place of LANDING's kernel: $(OUT)/watched.run, watched.test, fast.run, fast.test.
ifdef SOURCE
$(OUT)/watched.o: $(SOURCE)
	mkdir -p $(@D); $(CXX) $(WATCHED_FLAGS) $(SOURCE_FLAGS) $(DEPS) -x c++ -c $< -o $@
$(OUT)/fast.o: $(SOURCE)
	mkdir -p $(@D); $(CXX) $(FAST_FLAGS) $(SOURCE_FLAGS) $(DEPS) -x c++ -c $< -o $@
others = $(patsubst %,$1/%.o,$(call forwards_for,$(call folder,$(LANDING))))
$(OUT)/%.run: $(OUT)/%.o $(RUN) $(HARNESS) $(EMU_BACKEND) $(call others,$(FAST))
	$(CXX) -pthread $^ -o $@
$(OUT)/%.test: $(OUT)/%.o $(TEST_MAIN) $(HARNESS) $(EMU_BACKEND) $(call others,$(FAST)) $(call step_tests,$(LANDING))
	$(CXX) -pthread $^ -o $@ $(CATCH_LIB)
endif

SOURCES = $(shell find common $(FOLDERS) -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh')
format:
	clang-format -i $(SOURCES)
# Versions of clang-format differ in small things; the style is held to what version 14 makes of it.
format-check:
	if clang-format --dry-run -Werror $(SOURCES); then echo 'Every file is formatted.'; \
	elif clang-format --version | grep -q 'version 14\.'; then echo 'make format mends these.' >&2; exit 1; \
	else echo 'This clang-format is not version 14, whose word counts: not an error.'; fi

list:
	$(STEP_LIST)

clean:
	rm -rf build run

define HELP
Flash Ladder: attention kernels that become fast, one idea a step.

  make step 2         build a step; then ./run runs it and ./run --help says what it can do
                      (2, 5.1, N=2, 02_online_softmax or online_softmax)
  make list           the steps
  make diff 4         what step 4 changed in step 3, comments aside; make diff 2 4: between any two
  make test           test everything; make test 2 tests one step
  make clean          remove what was built

  make ladder         every step on this machine in one table: times on a GPU, counts without one
  make plots          draw what make ladder found into build/figures/ladder.svg (needs matplotlib)
  make bench          time every step on this GPU into bench.csv; BENCH="--help" lists what it takes
  make probe          latencies and bandwidths of this GPU's memories

  make exercises      broken kernels to repair; make exercise 3x2 begins one, make check judges it
                      (make hint, make solution, make watch; make grade SUBMISSIONS=dir for a teacher)

  make cuda           compile every step with nvcc for sm_75, sm_80 and sm_90a (no GPU needed)
  make sanitize       run every step under compute-sanitizer (needs a GPU)
  make test-bare      the README's first command on a bare Debian 12; SUITE=jammy, TESTS=1 (needs root and debootstrap)
  make test-aarch64   the tests of 00 to 05 as a Mac's container runs them (needs a cross compiler and qemu)
  make docs           rewrite the tables of the documents from docs/data/; make figures draws their pictures
  make counts         what tables and pictures need of the CPU back end, counted anew into docs/data/ (minutes)
  make format         clang-format over every source; make format-check only looks

With a step:
  BACKEND=emu|cuda    the CPU back end, or a GPU; here: $(BACKEND)
  WATCH=0             CPU back end without counts and fault finding, much faster
  TILE=64x32          query rows x keys of a tile
  ARCH=sm_80          the GPU to compile for (the one in this machine)
endef
export HELP
help:
	echo "$$HELP"
