/* Close request of T, attempts 1..NK, two submitters, one broker.  After docs/lifecycle.md
 * (Words, Rules, Orders).  Every action is one atomic transaction or one
 * network event; all actions are monotone, so the state graph is acyclic: every fair run is finite and
 * "ends or reaches an incident" is a check on terminal states (process Term; also as LTL with -DLTL).
 *
 * flags: DEDUP 0 FOREVER | 1 WHILE_OPEN | 2 NONE
 *   OPLOST 0 never | 1 evidence sound (visibility + network delay bounded, counted from lease) | 2 unbounded delay
 *   SPLIT  1: the fence test and the socket write are two steps (process may be paused in between)
 *   NOCUM  1: a `canceled` stream statement may come without its cumulative quantity
 *   LATEX  1: the broker may add one execution after it said canceled
 *   UNSOL  1: the broker may cancel/expire by itself     FB: broker fill budget (9 = no limit; 8 = chosen 0..3)
 *   WITHNS 1: withdrawal legal when every row is not_sent / not accepted (proposed wording)
 *   PROP1  1: `lost` also needs every unanswered row's sender confirmed dead or self-fenced (proposed wording)
 *   PROP2  1: a terminal statement without cumulative quantity does not make an order done (proposed wording)
 *   MARK   1: the sender records "about to write" in the row, if that has no answer yet, before the first byte; a row
 *          without the mark is answered not_sent by anybody, at any time
 *   HAND   1: besides, a file of the sender's host says "handed over" of a row, before the write; of a row that it says
 *          nothing of, and whose sender is seen to have exited there, anybody answers not_sent
 *   WHOLE  1: the close is of the whole position (T = P0)
 *   CLOSEONLY 1: the broker refuses what is more than it holds and has not promised to live orders
 *   REPEAT 1: the same id again, without a person, on assembled not-founds and for the whole position
 *          2: and only when nothing is in transit (visibility + network delay bounded, counted from the lease)
 *          3: and only when every sender of the order is known to have exited, too
 *   GROW   1: somebody else opens as much again at the broker, once, at any time
 * mutations: M_PART (REPEAT for a part of the position) M_NEWID M_R3B M_FENCE M_GAP M_GAPGUARD M_RESEND M_NS M_DEDUP M_R3BREAD M_DENY
 *   M_MARKLATE the mark follows the first byte   M_MARKBLIND it is set whatever the row's answer is
 *   M_MARKSOFT it can be lost with the database  M_TAKEBLIND not_sent by the lease alone, whatever the mark is
 *   M_HANDLATE the file says it after the write  M_HANDLIVE the sender may live
 */
#ifndef DEDUP
#define DEDUP 0
#endif
#ifndef OPLOST
#define OPLOST 0
#endif
#ifndef SPLIT
#define SPLIT 0
#endif
#ifndef NOCUM
#define NOCUM 0
#endif
#ifndef LATEX
#define LATEX 0
#endif
#ifndef UNSOL
#define UNSOL 1
#endif
#ifndef FB
#define FB 9
#endif
#ifndef WITHNS
#define WITHNS 0
#endif
#ifndef PROP1
#define PROP1 0
#endif
#ifndef PROP2
#define PROP2 0
#endif
#ifndef M_NEWID
#define M_NEWID 0
#endif
#ifndef M_R3B
#define M_R3B 0
#endif
#ifndef M_FENCE
#define M_FENCE 0
#endif
#ifndef M_GAP
#define M_GAP 0
#endif
#ifndef M_GAPGUARD
#define M_GAPGUARD 0
#endif
#ifndef M_RESEND
#define M_RESEND 0
#endif
#ifndef M_NS
#define M_NS 0
#endif
#ifndef M_DEDUP
#define M_DEDUP 0
#endif
#ifndef M_R3BREAD
#define M_R3BREAD 0
#endif
#ifndef M_DENY
#define M_DENY 0
#endif

#ifndef MARK
#define MARK 0
#endif
#ifndef WHOLE
#define WHOLE 0
#endif
#ifndef CLOSEONLY
#define CLOSEONLY 0
#endif
#ifndef REPEAT
#define REPEAT 0
#endif
#ifndef GROW
#define GROW 0
#endif
#ifndef HAND
#define HAND 0
#endif
#ifndef M_HANDLATE
#define M_HANDLATE 0
#endif
#ifndef M_HANDLIVE
#define M_HANDLIVE 0
#endif
#ifndef M_MARKLATE
#define M_MARKLATE 0
#endif
#ifndef M_MARKBLIND
#define M_MARKBLIND 0
#endif
#ifndef M_MARKSOFT
#define M_MARKSOFT 0
#endif
#ifndef M_PART
#define M_PART 0
#endif
#ifndef M_TAKEBLIND
#define M_TAKEBLIND 0
#endif

#define T   2          /* target */
#if WHOLE
#define P0  T
#else
#define P0  5          /* opening position: larger than the target, so held quantity alone does not save us */
#endif
#define NK  2          /* attempts */
#define MS  2          /* order_sends rows per order */
#define NR  4
#define NF  1          /* not-founds that make the evidence */
#define K(r) ((r)/MS)

/* request */
#define PENDING 1
#define SUBMITTED 2
#define RETRYABLE 3
#define COMPLETED 4
#define FAILED 5
/* row.answer */
#define RNONE 0
#define ROPEN 1
#define RNOTSENT 2
#define RNOTACC 2      /* 429/401: same consequence as not_sent */
#define RUNS 3         /* answered, but proves nothing by itself: ack, duplicate, refusal of a repeated send */
/* newest broker statement */
#define SNONE 0
#define SLIVE 1
#define SCANC 2
#define SFILL 3
#define SREJ 4
/* broker order */
#define BNONE 0
#define BLIVE 1
#define BCANC 2
#define BFILL 3
/* network */
#define NIDLE 0
#define NTRANS 1
#define NDONE 2
/* answer on the wire */
#define ANONE 0
#define AACK 1
#define AREF 2
#define ADUP 3
#define ARL 4
/* sender */
#define IDLE 0
#define CLAIMED 1
#define PASSED 2
#define WROTE 3
#define MARKED 4
#define HANDED 5

byte rst = PENDING; byte att = 0; byte pos = P0;
byte qty[NK]; byte stmt[NK]; byte kc[NK]; byte ex[NK]; byte cxl[NK]; byte nf[NK];
bit lost[NK]; bit denied[NK];
byte row[NR]; bit lov[NR];
byte net[NR]; byte res[NR]; byte bst[NR]; byte bcum[NR]; byte app[NR]; bit vis[NR]; bit latex[NR];
bit held[NR]; bit waits[NR];  /* ghosts (functions of the senders' pc): somebody holds the row unwritten / waits for its answer */
bit mark[NR]; bit hand[NR];
byte fb = FB; byte applied = 0; byte grown = 0;

#define EXISTS(k) (qty[k] != 0)
#define DONE(k) (denied[k] || kc[k] >= qty[k] || stmt[k]==SCANC || stmt[k]==SFILL || stmt[k]==SREJ || (lost[k] && stmt[k]==SNONE))
#define EXPO(k) ((EXISTS(k) && !DONE(k)) -> (qty[k]-kc[k]) : 0)
#define SKC (kc[0]+kc[1])
#define SEX (ex[0]+ex[1])
#define UNATTR ((kc[0]-ex[0]) + (kc[1]-ex[1]))
#define ALLDONE ((!EXISTS(0) || DONE(0)) && (!EXISTS(1) || DONE(1)))
#define RUN1(r) (row[r]==ROPEN && !lov[r])
#define RUNNING(k) (RUN1(k*MS) || RUN1(k*MS+1))
#define NOBYTE(r) (row[r]==RNONE || row[r]==RNOTSENT || row[r]==RNOTACC)
#define UNSURE(k) (!NOBYTE(k*MS) || !NOBYTE(k*MS+1))
#define NOROW(k) (row[k*MS]==RNONE)
#define FULL(k) (row[k*MS+1]!=RNONE)
#define OTHER(r) (K(r)*MS + 1 - ((r)%MS))

#if M_GAP
#define GAPOK 1
#define OWED (T-SEX)
#define R5OK 1
#elif M_GAPGUARD
#define GAPOK 1
#define OWED (T-SKC)
#define R5OK (SKC + EXPO(0) + EXPO(1) <= T)
#else
#define GAPOK (UNATTR==0)
#define OWED (T-SKC)
#define R5OK (SKC + EXPO(0) + EXPO(1) <= T)
#endif

#define RESENDOK (DEDUP==0 || M_RESEND)
#define HELD (P0 + grown - BTOT)
#define LEAVES1(r) (LIVE1(r) -> (qty[K(r)]-bcum[r]) : 0)
#define FREE (HELD - LEAVES1(0) - LEAVES1(1) - LEAVES1(2) - LEAVES1(3))
#define GONE(k) (!held[k*MS] && !held[k*MS+1])
#define STILL(k) (net[k*MS]!=NTRANS && bst[k*MS]==BNONE && net[k*MS+1]!=NTRANS && bst[k*MS+1]==BNONE)
#define REPEATOK(k) (REPEAT!=0 && nf[k]==NF && (M_PART || qty[k]==pos) && ex[k]==0 && kc[k]==0 && (REPEAT<2 || (STILL(k) && HELD==pos)) && (REPEAT<3 || GONE(k)))
#define MAYSEND(k) (EXISTS(k) && rst==SUBMITTED && !DONE(k) && stmt[k]==SNONE && cxl[k]==0 && !RUNNING(k) && !FULL(k) && GAPOK && R5OK && (!UNSURE(k) || (RESENDOK && nf[k]>=1) || REPEATOK(k)))
#define NSEND(k) ((row[k*MS]==RNONE) -> 0 : 1)

#define LIVE1(r) (bst[r]==BLIVE)
#define NLIVE (LIVE1(0)+LIVE1(1)+LIVE1(2)+LIVE1(3))
#define BTOT (bcum[0]+bcum[1]+bcum[2]+bcum[3])

#define ENDED (rst==COMPLETED || rst==FAILED)

inline claim(k) { r = k*MS + NSEND(k); row[r] = ROPEN; lov[r] = 0; held[r] = 1; nf[k] = 0; pc = CLAIMED }
/* canonical form: once a statement names the order, the answers of its rows decide nothing any more */
#define CAN1(q) if :: row[q]!=RNONE && !held[q] && !waits[q] -> row[q] = RUNS; lov[q] = 0; mark[q] = 0; hand[q] = 0 :: else fi
#ifdef NOCANON
inline canon(k) { skip }
#else
inline canon(k) { if :: stmt[k]!=SNONE -> CAN1(k*MS); CAN1(k*MS+1); nf[k] = 0; vis[k*MS] = 0; vis[k*MS+1] = 0 :: else fi }
#endif
inline write_() { net[r] = NTRANS; held[r] = 0; waits[r] = 1; pc = WROTE }
inline idle() { held[r] = 0; waits[r] = 0; res[r] = ANONE; if :: row[r]!=ROPEN -> lov[r] = 0 :: else fi; canon(K(r)); pc = IDLE; r = 0; sawonly = 0 }

proctype Sub()
{ byte pc = IDLE; byte r = 0; bit sawonly = 0;
end:
  do
  /* C2: planning transaction, with or without the first send row */
  :: atomic { pc==IDLE && rst==PENDING && qty[att]==0 && OWED>0 && OWED<=T && GAPOK && ALLDONE ->
       qty[att] = OWED; rst = SUBMITTED;
       if :: claim(att) :: skip fi }
  :: atomic { pc==IDLE && MAYSEND(0) -> claim(0) }
  :: atomic { pc==IDLE && MAYSEND(1) -> claim(1) }
  /* O2 / C4 */
  :: atomic { pc==IDLE && rst==SUBMITTED && EXISTS(att) && !denied[att] &&
#if M_DENY
       stmt[att]==SNONE
#elif WITHNS
       !UNSURE(att)
#else
       NOROW(att)
#endif
       -> denied[att] = 1; rst = FAILED }
  /* fence, then the write */
#if MARK && !M_MARKLATE
  :: atomic { pc==CLAIMED && (M_MARKBLIND || row[r]==ROPEN) -> mark[r] = 1; pc = MARKED }
#define READY MARKED
#else
#define READY CLAIMED
#endif
#if M_MARKLATE
  :: atomic { pc==WROTE && row[r]==ROPEN && !mark[r] -> mark[r] = 1 }
#endif
#if SPLIT
  :: atomic { pc==READY && (M_FENCE || !lov[r]) -> pc = PASSED }
#if HAND && !M_HANDLATE
  :: atomic { pc==PASSED -> hand[r] = 1; pc = HANDED }
  :: atomic { pc==HANDED -> write_() }
#else
  :: atomic { pc==PASSED -> write_() }
#endif
#if M_HANDLATE
  :: atomic { pc==WROTE && row[r]==ROPEN && !hand[r] -> hand[r] = 1 }
#endif
#else
  :: atomic { pc==READY && (M_FENCE || !lov[r]) -> write_() }
#endif
  /* no byte written, and the sender itself says so */
  :: atomic { (pc==CLAIMED || pc==MARKED || pc==PASSED || pc==HANDED) -> row[r] = RNOTSENT; idle() }
#if M_NS
  :: atomic { pc==WROTE -> row[r] = RNOTSENT; idle() }
#endif
  /* crash, or time-out without an answer */
  :: atomic { pc!=IDLE -> idle() }
  /* answers */
  :: atomic { pc==WROTE && net[r]==NDONE && res[r]==AACK ->
       row[r] = RUNS; if :: stmt[K(r)]==SNONE -> stmt[K(r)] = SLIVE :: else fi; idle() }
  :: atomic { pc==WROTE && net[r]==NDONE && res[r]==ADUP -> row[r] = RUNS; idle() }
  :: atomic { pc==WROTE && net[r]==NDONE && res[r]==ARL -> row[r] = RNOTACC; idle() }
#if M_R3BREAD
  /* mutation: "only send?" is tested when the answer is read, the result is written later */
  :: atomic { pc==WROTE && net[r]==NDONE && res[r]==AREF && !sawonly && NOBYTE(OTHER(r)) -> sawonly = 1 }
#endif
  :: atomic { pc==WROTE && net[r]==NDONE && res[r]==AREF ->
       row[r] = RUNS;
       if :: (M_R3B || sawonly || NOBYTE(OTHER(r))) && stmt[K(r)]==SNONE -> stmt[K(r)] = SREJ :: else fi;
       idle() }
  od
}

#define DUPCOND(r) ((DEDUP==0 && (bst[OTHER(r)]!=BNONE)) || (DEDUP==1 && bst[OTHER(r)]==BLIVE))
inline check() { assert(NLIVE <= 1); assert(BTOT <= T) }

#define BROW(r) \
  :: atomic { net[r]==NTRANS -> net[r] = NDONE; \
       if :: res[r] = ANONE :: waits[r] -> res[r] = AREF :: waits[r] -> res[r] = ARL \
          :: waits[r] && DUPCOND(r) -> res[r] = ADUP \
          :: !DUPCOND(r) && (!CLOSEONLY || FREE >= qty[K(r)]) -> if :: waits[r] -> res[r] = AACK :: else fi; bst[r] = BLIVE; check() fi } \
  :: atomic { bst[r]==BLIVE && bcum[r]<qty[K(r)] && fb>0 -> bcum[r]++; \
       if :: fb==9 :: fb<9 -> fb-- fi; \
       if :: bcum[r]==qty[K(r)] -> bst[r] = BFILL :: else fi; check() } \
  :: atomic { bst[r]==BLIVE && (UNSOL || (cxl[K(r)]==1 && stmt[K(r)]==SLIVE)) -> bst[r] = BCANC } \
  :: atomic { LATEX && bst[r]==BCANC && !latex[r] && bcum[r]<qty[K(r)] -> latex[r] = 1; bcum[r]++; check() } \
  :: atomic { bst[r]!=BNONE && !vis[r] && stmt[K(r)]==SNONE -> vis[r] = 1 }

#if M_MARKSOFT
#define MARKLOST(r) :: atomic { mark[r] -> mark[r] = 0 }
#else
#define MARKLOST(r)
#endif
proctype Broker()
{
#if FB==8
  if :: fb = 0 :: fb = 1 :: fb = 2 :: fb = 3 fi;
#endif
end:
  do
  BROW(0) BROW(1) BROW(2) BROW(3)
  MARKLOST(0) MARKLOST(1) MARKLOST(2) MARKLOST(3)
  :: atomic { GROW && grown==0 -> grown = T }
  od
}

#define GONE(r) (M_HANDLIVE || (!held[r] && !waits[r]))
#define TAKEN(r) ((MARK && !mark[r]) || (M_TAKEBLIND && lov[r]) || (HAND && !hand[r] && GONE(r)))
#define CROW(r) :: atomic { row[r]==ROPEN && !lov[r] -> lov[r] = 1 } \
  :: atomic { row[r]==ROPEN && TAKEN(r) -> row[r] = RNOTSENT; if :: held[r] || waits[r] :: else -> lov[r] = 0 fi; canon(K(r)) }
proctype Clock()
{
end: do CROW(0) CROW(1) CROW(2) CROW(3) od
}

inline snap(r) {   /* newest statement; older ones change nothing under R3a */
  if :: kc[K(r)] < bcum[r] -> kc[K(r)] = bcum[r] :: else fi; stmt[K(r)] = bst[r]; canon(K(r)) }
inline exec1(r, e) {
  app[r] = app[r] | (1<<e); applied++; ex[K(r)]++; pos--;
  if :: kc[K(r)] < ex[K(r)] -> kc[K(r)] = ex[K(r)] :: else fi;
  if :: stmt[K(r)]==SNONE || stmt[K(r)]==SREJ -> stmt[K(r)] = SLIVE :: else fi;
  canon(K(r)); assert(pos == P0 - applied) }
#define FROW(r) \
  :: atomic { bst[r]!=BNONE && (stmt[K(r)]!=bst[r] || kc[K(r)]<bcum[r]) -> snap(r) } \
  :: atomic { NOCUM && !PROP2 && bst[r]==BCANC && stmt[K(r)]!=SCANC -> stmt[K(r)] = SCANC; canon(K(r)) } \
  :: atomic { bcum[r]>=1 && !(app[r]&1) -> exec1(r,0) } \
  :: atomic { bcum[r]>=2 && !(app[r]&2) -> exec1(r,1) } \
  :: atomic { M_DEDUP && (app[r]&1) && pos>0 -> pos--; assert(pos == P0 - applied) }

proctype FP()
{
end:
  do
  FROW(0) FROW(1) FROW(2) FROW(3)
  :: atomic { rst!=COMPLETED && SEX>=T -> rst = COMPLETED }                                  /* C5, C9 */
  :: atomic { rst==SUBMITTED && EXISTS(att) && ALLDONE && GAPOK && SEX<T ->                    /* C6 / C7 */
       if :: att<NK-1 -> rst = RETRYABLE :: else -> rst = FAILED fi }
  od
}

#define FOUND1(r) (bst[r]!=BNONE && vis[r])
#define LOOKABLE(k) (EXISTS(k) && stmt[k]==SNONE && UNSURE(k) && !RUNNING(k))
/* incident = derived: nothing automatic is left for this order (R6 evidence assembled, or rows used up) */
#define INC(k) (EXISTS(k) && !DONE(k) && !RUNNING(k) && stmt[k]==SNONE && ( \
   (UNSURE(k) && nf[k]==NF && (!(RESENDOK || REPEATOK(k)) || FULL(k) || cxl[k]!=0)) || (!UNSURE(k) && !NOROW(k) && (FULL(k) || cxl[k]!=0))))
#ifdef M_NOINC
#define INCIDENT 0      /* vacuity check of the liveness property */
#else
#define INCIDENT (INC(0) || INC(1))
#endif
#define RK(k) \
  :: atomic { LOOKABLE(k) && FOUND1(k*MS) -> snap(k*MS) } \
  :: atomic { LOOKABLE(k) && FOUND1(k*MS+1) -> snap(k*MS+1) } \
  :: atomic { LOOKABLE(k) && !FOUND1(k*MS) && !FOUND1(k*MS+1) && nf[k]<NF -> nf[k]++ } \
  :: atomic { EXISTS(k) && !DONE(k) && !NOROW(k) && cxl[k]==0 && rst!=COMPLETED -> cxl[k] = 1 } \
  :: atomic { M_NEWID && !lost[k] && LOOKABLE(k) && !DONE(k) && nf[k]==NF -> lost[k] = 1 }

proctype Rec()
{
end:
  do
  RK(0) RK(1)
  :: atomic { rst==RETRYABLE && ALLDONE && GAPOK && SEX<T -> att++; rst = PENDING }             /* C8 */
  od
}

#define DEAD(k) (!held[k*MS] && !held[k*MS+1])
#define QUIET1(r) (net[r]!=NTRANS && bst[r]==BNONE)
#define OPK(k) \
  :: atomic { OPLOST!=0 && !lost[k] && LOOKABLE(k) && INC(k) && nf[k]==NF && ex[k]==0 && kc[k]==0 && \
       (OPLOST==2 || (QUIET1(k*MS) && QUIET1(k*MS+1))) && (!PROP1 || DEAD(k)) -> lost[k] = 1 }
proctype Op()
{
end: do OPK(0) OPK(1) od
}

proctype Term() { end: timeout -> assert(ENDED || INCIDENT) }

init { atomic { run Sub(); run Sub(); run Broker(); run Clock(); run FP(); run Rec(); run Op();
#ifndef LTL
 run Term()
#endif
 } }

#ifdef LTL
ltl live { <> (ENDED || INCIDENT) }
#endif
