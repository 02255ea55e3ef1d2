#!/bin/bash
# ./run.sh: check every variant and write results.txt. Each run keeps run/NAME/pan.out and, on error, its trail.
# Replay one: cd run/NAME && spin <flags> -t -p ../../close.pml
# Exit code 1 when a variant does not end as it must: what is in `holds` without an error, what is in `breaks` with one.
cd "$(dirname "$0")" || exit 2
for tool in spin cc; do
  command -v $tool >/dev/null || { echo "the model needs spin and a C compiler: '$tool' was not found (Debian: apt-get install spin gcc)"; exit 2; }
done
: > results.txt
holds() { echo "holds|$1|$2"; }
breaks() { echo "breaks|$1|$2"; }
{
# --- the protocol as built before the mark, no operator
for d in 0 1 2; do holds base_d$d "-DDEDUP=$d -DNF=2 -DSPLIT=1"; done
for d in 0 1 2; do holds nounsol_d$d "-DDEDUP=$d -DUNSOL=0 -DFB=8"; done
for d in 0 1 2; do holds withns_d$d "-DDEDUP=$d -DWITHNS=1"; done
for d in 1 2; do holds nocanon_d$d "-DDEDUP=$d -DNOCANON=1"; done
# --- an operator may declare lost
for d in 0 1 2; do holds op1_atomicfence_d$d "-DDEDUP=$d -DOPLOST=1"; done
for d in 0 1 2; do breaks op1_split_d$d "-DDEDUP=$d -DOPLOST=1 -DSPLIT=1"; done
for d in 0 1 2; do holds op1_split_prop1_d$d "-DDEDUP=$d -DOPLOST=1 -DSPLIT=1 -DPROP1=1"; done
for d in 0 1 2; do breaks op2_unbounded_d$d "-DDEDUP=$d -DOPLOST=2"; done
# --- broker statements without cumulative quantity, late executions
for d in 0 2; do breaks nocum_d$d "-DDEDUP=$d -DNOCUM=1"; done
for d in 0 2; do holds nocum_prop2_d$d "-DDEDUP=$d -DNOCUM=1 -DPROP2=1"; done
for d in 0 2; do breaks latex_d$d "-DDEDUP=$d -DLATEX=1"; done
# --- a claim that is known to have written nothing
for d in 0 1 2; do holds mark_d$d "-DDEDUP=$d -DMARK=1 -DSPLIT=1"; done
for d in 1 2; do holds mark_withns_d$d "-DDEDUP=$d -DMARK=1 -DSPLIT=1 -DWITHNS=1"; done
for d in 1 2; do holds mark_lost_d$d "-DDEDUP=$d -DMARK=1 -DSPLIT=1 -DOPLOST=1 -DPROP1=1"; done
for d in 1 2; do holds mark_nofence_d$d "-DDEDUP=$d -DMARK=1 -DSPLIT=1 -DM_FENCE=1"; done
for d in 0 1 2; do breaks mut_marklate_d$d "-DDEDUP=$d -DMARK=1 -DSPLIT=1 -DM_MARKLATE=1"; done
for d in 0 1 2; do breaks mut_markblind_d$d "-DDEDUP=$d -DMARK=1 -DSPLIT=1 -DM_MARKBLIND=1"; done
for d in 0 1 2; do breaks mut_marksoft_d$d "-DDEDUP=$d -DMARK=1 -DSPLIT=1 -DM_MARKSOFT=1"; done
for d in 0 1 2; do breaks mut_takeblind_d$d "-DDEDUP=$d -DMARK=1 -DSPLIT=1 -DM_TAKEBLIND=1"; done
# --- and a begun claim of a sender that has exited on a host whose file does not say that it was handed over
for d in 0 1 2; do holds hand_d$d "-DDEDUP=$d -DMARK=1 -DHAND=1 -DSPLIT=1"; done
for d in 1 2; do holds hand_withns_d$d "-DDEDUP=$d -DMARK=1 -DHAND=1 -DSPLIT=1 -DWITHNS=1"; done
for d in 1 2; do holds hand_lost_d$d "-DDEDUP=$d -DMARK=1 -DHAND=1 -DSPLIT=1 -DOPLOST=1 -DPROP1=1"; done
for d in 0 1 2; do breaks mut_handlate_d$d "-DDEDUP=$d -DMARK=1 -DHAND=1 -DSPLIT=1 -DM_HANDLATE=1"; done
for d in 0 1 2; do breaks mut_handlive_d$d "-DDEDUP=$d -DMARK=1 -DHAND=1 -DSPLIT=1 -DM_HANDLIVE=1"; done
# --- the same id again without a person, at a broker that enforces close-only orders
W="-DSPLIT=1 -DWHOLE=1 -DREPEAT"
for d in 1 2; do holds repeat_d$d "-DDEDUP=$d $W=1 -DCLOSEONLY=1"; done
for d in 1 2; do holds repeat_mark_d$d "-DDEDUP=$d $W=3 -DCLOSEONLY=1 -DMARK=1"; done
for d in 1 2; do holds repeat_lost_d$d "-DDEDUP=$d $W=3 -DCLOSEONLY=1 -DOPLOST=1 -DPROP1=1"; done
for d in 1 2; do holds repeat3_grow_d$d "-DDEDUP=$d $W=3 -DCLOSEONLY=1 -DGROW=1"; done
for d in 1 2; do breaks repeat_notenforced_d$d "-DDEDUP=$d $W=1"; done
for d in 1 2; do breaks repeat_part_d$d "-DDEDUP=$d -DSPLIT=1 -DREPEAT=1 -DCLOSEONLY=1 -DM_PART=1"; done
for d in 1 2; do holds repeat3_part_d$d "-DDEDUP=$d -DSPLIT=1 -DREPEAT=3 -DCLOSEONLY=1 -DM_PART=1"; done
for d in 1 2; do breaks repeat1_grow_d$d "-DDEDUP=$d $W=1 -DCLOSEONLY=1 -DGROW=1"; done
for d in 1 2; do breaks repeat2_grow_d$d "-DDEDUP=$d $W=2 -DCLOSEONLY=1 -DGROW=1"; done
# --- mutations; those that hold are no danger by themselves
for d in 0 1 2; do breaks mut_newid_d$d "-DDEDUP=$d -DM_NEWID=1"; done
breaks mut_r3b_d0 "-DDEDUP=0 -DM_R3B=1"
for d in 1 2; do holds mut_r3b_d$d "-DDEDUP=$d -DM_R3B=1"; done
breaks mut_r3bread_d0 "-DDEDUP=0 -DM_R3BREAD=1"
for d in 1 2; do holds mut_r3bread_d$d "-DDEDUP=$d -DM_R3BREAD=1"; done
for d in 0 1 2; do holds mut_fence_noop_d$d "-DDEDUP=$d -DM_FENCE=1"; done
for d in 0 1 2; do breaks mut_fence_op1_d$d "-DDEDUP=$d -DM_FENCE=1 -DOPLOST=1"; done
for d in 0 2; do breaks mut_gap_d$d "-DDEDUP=$d -DM_GAP=1"; done
for d in 0 2; do holds mut_gapguardonly_d$d "-DDEDUP=$d -DM_GAPGUARD=1"; done
breaks mut_resend_whileopen "-DDEDUP=1 -DM_RESEND=1"
breaks mut_resend_none "-DDEDUP=2 -DM_RESEND=1"
for d in 0 2; do breaks mut_notsent_d$d "-DDEDUP=$d -DM_NS=1"; done
for d in 0 2; do holds mut_deny_d$d "-DDEDUP=$d -DM_DENY=1"; done
for d in 0 2; do holds fence_removed_prop1_d$d "-DDEDUP=$d -DM_FENCE=1 -DOPLOST=1 -DPROP1=1"; done
for d in 0 2; do breaks vacuity_noincident_d$d "-DDEDUP=$d -DM_NOINC=1 -DUNSOL=0 -DFB=8"; done
breaks mut_execdedup "-DDEDUP=0 -DM_DEDUP=1"
} > list.txt
check() { # exhaustive depth-first search; when that finds an error, breadth-first for the shortest counterexample
  IFS="|" read -r must name flags <<< "$1"
  line=$(./one.sh "$name" "$flags" "-DSAFETY -DCOLLAPSE")
  case "$line" in *"errors: 1"*) line=$(./one.sh "$name" "$flags" "-DSAFETY -DBFS");; esac
  case "$must$line" in holds*"errors: 0"* | breaks*"errors: 1"*) ok="";; *) ok="  <== MUST $must";; esac
  echo "$must | $line$ok"
}
export -f check
tr '\n' '\0' < list.txt | xargs -0 -P"${JOBS:-2}" -I{} bash -c 'check "{}"' >> results.txt 2>&1
# liveness as LTL <>(ended or incident), weak fairness
for d in 2 1 0; do
  line=$(./one.sh ltl_d$d "-DDEDUP=$d -DLTL=1 -DUNSOL=0 -DFB=8" "-DCOLLAPSE -DNFAIR=3" "-a -f")
  case "$line" in *"errors: 0"*) ok="";; *) ok="  <== MUST holds";; esac
  echo "holds | $line$ok"
done >> results.txt 2>&1
rm list.txt
cat results.txt
! grep -q '<== MUST' results.txt
