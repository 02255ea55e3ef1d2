#!/bin/bash
# ./one.sh NAME "SPIN FLAGS" "CC FLAGS" ["PAN FLAGS"]: check one variant, print one line; its files stay in run/NAME
here=$(cd "$(dirname "$0")" && pwd); mkdir -p "$here/run/$1" && cd "$here/run/$1" || exit 1
rm -f ./*.trail; spin $2 -a ../../close.pml >spin.out 2>&1 && cc -O2 -DMEMLIM=6000 $3 -o pan pan.c 2>cc.out || { echo "$1 | $2 | DID NOT BUILD"; exit 1; }
timeout "${TL:-120}" ./pan -m20000 $4 >pan.out 2>&1; rc=$?
err=$(grep -oE 'errors: [0-9]+' pan.out | tail -1); [ $rc -eq 124 ] && err="INCOMPLETE (time)"
grep -q 'max search depth too small' pan.out && err="INCOMPLETE (depth)"
grep -q 'memory' pan.out && grep -qE 'pan: (reached -DMEMLIM|out of memory)' pan.out && err="INCOMPLETE (memory)"
echo "$1 | $2 | ${err:-rc $rc} | states $(grep -oE '[0-9]+ states, stored' pan.out | grep -oE '^[0-9]+') | depth $(grep -oE 'depth reached [0-9]+' pan.out | grep -oE '[0-9]+$') | $(grep -m1 -E 'assertion violated|acceptance cycle|invalid end state' pan.out | tr -d '\t')"
