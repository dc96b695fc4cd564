#!/bin/sh
# heed_ptxas.sh SOURCE NVCC...: runs nvcc on the source. ptxas mends a kernel that uses wgmma or setmaxnreg the wrong way by
# making them useless, and says so in a line of "info" that nothing treats as an error. Here it is one.
source=$1
shift
said=$("$@" 2>&1)
status=$?
[ -z "$said" ] || printf '%s\n' "$said" >&2
[ $status -eq 0 ] || exit $status
if printf '%s\n' "$said" | grep -Eq 'Potential Performance Loss|warpgroup\.(arrive|wait) is injected'; then
  echo "$source: ptxas makes wgmma wait, or ignores setmaxnreg, as it says above. docs/wgmma_serialised.md has each of its remarks, what causes it and what helps." >&2
  exit 1
fi
