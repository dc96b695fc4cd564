#!/bin/sh
# sanitize.sh PROGRAM...: each step on small ragged problems under the four tools of compute-sanitizer.
sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null) || {
  echo "compute-sanitizer, which comes with the CUDA toolkit, is not here." >&2
  exit 2
}
failed=0
for program; do
  for tool in memcheck racecheck initcheck synccheck; do
    for problem in "--batch 2 --heads 2 --kv-heads 1 --seqlen 65 --seqlen-k 193" "--heads 2 --seqlen 129 --seqlen-k 66 --causal"; do
      for head_dim in 64 128; do
        run="$program $problem --head-dim $head_dim --iters 1"
        output=$("$sanitizer" --tool "$tool" --error-exitcode 9 $run 2>&1)
        status=$?
        case $status in
          0) ;;
          4) printf '%-10s SKIP  %s: %s\n' "$tool" "$run" "$(echo "$output" | grep SKIP)" ;;
          *) printf '%-10s FAIL  %s\n%s\n' "$tool" "$run" "$output"; failed=1 ;;
        esac
      done
    done
    [ $failed -eq 0 ] && printf '%-10s clean %s\n' "$tool" "$program"
  done
done
exit $failed
