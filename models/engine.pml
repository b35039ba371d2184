/* The lock-free session counter: writers with admit/release words, a pool whose word publishes its last operation,
 * freeze - fence - settle, and the resolution of claims that met a change.
 *
 * Which instance is checked is chosen with -D flags:
 *   kind        -DLANE    every thread has a writer of its own (plain stores)                    [default]
 *               -DSHARD   threads 0 and 1 share writer 0 through restartable sections on one CPU; thread 2 has a lane
 *               -DLOCKED  threads 0 and 1 share writer 0 with atomic adds; thread 2 has a lane
 *   size        -DNT=threads (1..3)  -DCAP=cap  -DK=operations of each thread (-DK0 -DK1 -DK2 for single ones;
 *               0 = any number: a thread goes on or stops as it likes)  -DSBN=1|2 depth of a store buffer
 *   -DNP0=n     the first n threads are process 0 (default: 2 for SHARD and LOCKED, 1 for LANE), the rest one process each
 *   -DDIRECT    the last thread has no writer and uses the balance of its process
 *   -DFOREIGN   a thread may also release a session that belongs to another process
 *   -DCRASH=s   process s may be killed at any step; -DNREAP=n reapers (default 1, 0: nobody reaps)
 *   -DCAP2=c    one more actor, the keeper, sets the cap to c
 *   -DLOAN=n    n sessions beyond the cap until a deadline, which passes at some moment; not with DIRECT
 *   -DLOAN2=m   the keeper makes them m (0: none), with the same deadline, or with -DLATER with one that does not pass
 *   -DWHOLE     a pool operation reaches its target at the instant it is published (no helping): for larger instances
 *   -DHINT      the pool's hint of the last operation known to be applied
 *   -DRAWSEQ    plain growing sequence numbers, no renaming (see rename)
 *   -DNOMIG     a shard thread never changes its CPU
 *   -DONEREAD   R and A are read in one step: for larger instances
 *   -DFOLDS     a thread may fold its writer's credit into the balance at any time (done when the credit gets large)
 *   -DOWNERQUIET  the only thread of a writer resolves without a transaction what moves no credit
 * What a -DMUT_... flag leaves out or turns round is said where it stands.                                        */

#ifndef NT
#define NT 2
#endif
#ifndef CAP
#define CAP 1
#endif
#ifndef K
#define K 2
#endif
#ifndef K0
#define K0 K
#endif
#ifndef K1
#define K1 K
#endif
#ifndef K2
#define K2 K
#endif
#ifndef SBN
#define SBN 1
#endif
#ifndef NREAP
#define NREAP 1
#endif
#ifndef OPENMIN
#define OPENMIN 0          /* a tight release may open its writer when free >= OPENMIN */
#endif
#if defined(SHARD) || defined(LOCKED)
#define TEAM 2             /* threads on writer 0 */
#else
#define TEAM 1
#endif
#ifndef NP0
#define NP0 TEAM
#endif
#ifdef LOAN2
#ifndef CAP2
#define CAP2 CAP
#endif
#endif
#if defined(LOAN) && defined(DIRECT)
#error only writers borrow
#endif
#if defined(MUT_NOSEQ) || defined(MUT_NORECHECK)
#define RAWSEQ
#endif

#define WR(p)    ((p) < TEAM -> 0 : (p)-TEAM+1)
#define PROC(p)  ((p) < NP0 -> 0 : (p)-NP0+1)
#define OPS(p)   ((p)==0 -> K0 : ((p)==1 -> K1 : K2))
#define OWNER(p) ((p) >= TEAM || TEAM == 1)          /* the only thread of its writer: a lane */
#ifdef DIRECT
#define BARE(p)  ((p) == NT-1)
#else
#define BARE(p)  0
#endif
#define NW  (NT-TEAM+1)
#define NPR (NT-NP0+1)
#define CAPPER NT
#define REAPER0 (NT+1)
#define NACT (NT+2)        /* reapers share one place: a second reaper has the next (see below) */
#ifdef CRASH
#if NREAP > 1
#undef NACT
#define NACT (NT+1+NREAP)
#endif
#endif

#ifdef CRASH
#define NOTKILLER(p) (PROC(p) != CRASH)
#else
#define NOTKILLER(p) 1
#endif
#ifdef CAP2
#define CAPTURN 1
#else
#define CAPTURN 0
#endif

#define TIGHT 0
#define OPENED 1           /* LOOSE or LOOSE_LOCKED: which of them is a constant of the writer */
#define FROZEN 2

/* operations of the pool */
#define O_NONE   0
#define O_ADJUST 1         /* C := amount: names the result, not a difference */
#define O_TAKE   2         /* phase kept */
#define O_TAKEO  3         /* -> open */
#define O_GROW   4
#define O_SETTLE 5
#define O_OPEN   6
#define O_CONFIRM 7
#define O_WITHDRAW 8
#define O_FOLD   9         /* two targets: writer, then the balance of its process */
#define O_BADJUST 10       /* from here on: balance only */
#define O_FREE   11
#define O_CAP    12        /* no target */
#define HITS_W(o) ((o) >= O_ADJUST && (o) <= O_FOLD)
#define HITS_B(o) ((o) >= O_FOLD && (o) <= O_FREE)

#define STALE 255          /* a remembered sequence number that can equal no current one */

/* A, R: what memory holds; b0, b1: the stores of the writer's CPU that memory does not have yet, the older one first
 * (0 nothing, 1 an admit, 2 a release). Only that CPU stores to A and R, so a buffered store is known by its kind.   */
typedef writer_t { short C; short G; byte ph; byte sq; short A; short R; byte b0; byte b1 }
typedef account_t { short bal; byte sq; bit live }
writer_t W[NW];
account_t B[NPR];
short free = CAP; byte loose = 0; byte seq = 1;
byte dop = O_NONE; byte didx = 0; short damt = 0;
#ifdef HINT
byte hint = 0;
#endif
short capnow = CAP;
bit dead[NPR];
#ifdef LOAN
/* The loan is one word: sessions, and in FAR which of the two deadlines. */
#define FAR 16
byte loan = LOAN;
bit past = 0;              /* the time of the first deadline is over */
#define SESSIONS(l) ((l) >= FAR -> (l) - FAR : (l))
#define OVER(l) ((l) < FAR && past)
#ifndef LATER
#define LATER 0
#else
#undef LATER
#define LATER FAR
#endif
#endif
#if TEAM == 2 && defined(SHARD)
byte insec = 0;            /* thread + 1 that is inside the section of writer 0 */
#define RUN(p) (away[p] || insec == 0 || insec == (p)+1)
#else
#define RUN(p) 1
#endif

/* what actors remember of words, and half-made reads; global, so that rename() sees them */
byte ps[NACT];             /* sequence number of the pool word loaded last */
byte lx[NACT]; byte lxt[NACT];    /* the pair about to be replaced: its number; 1+writer or 100+account */
byte w0[NACT];             /* the word seen by the pre-check (it was open) */
byte rs[NACT*NW];          /* frozen words seen by a collector, STALE = none */
byte lq[NACT];             /* 1 + writer that lG, lR are about */
short lG[NACT]; short lR[NACT]; short lT[NACT];
bit away[NACT];            /* not on the CPU of its writer: sees memory only */

short avail[NPR];          /* sessions of a process that a thread of it may release */
byte ndone = 0; byte nlost = 0;
byte bad = 0;              /* 1 no order of the calls explains what they returned, 2 conservation, 3 at the end */
byte me_ = 0; byte ag_ = 0;       /* arguments of C functions */

/* ---- the judge: does an order of the calls exist ---------------------------------------------------------------
 * It keeps the set of all explanations of the history so far, closed under "let another pending call take effect".
 * An explanation says of each actor: 0 no effect yet, 1 done, 2 refused (a release: too late), and whether the dead
 * process was already reaped. Return of a call keeps only the explanations that agree; none left = no order exists.
 * A change of cap and loan takes effect in three steps: 1 the smaller of both loans, 2 the new cap, 3 the new loan.
 * A session that is late and goes back has been one until then, if the limit is reached without it; or it never was.
 * A look at the pool is a moment at which no more are in use than it finds taken.                                  */
c_decl {
#define J_ADMIT 1
#define J_RELEASE 2
#define J_CAP 3
#ifdef LOAN2
#define HALF 108           /* the keeper's change has three steps */
#else
#define HALF 81
#endif
typedef struct judge {
  unsigned long long set[(2 * HALF + 63) / 64];
  signed char use[4];      /* sessions of each process by finished calls */
  signed char what[4];     /* pending call of an actor */
  signed char whose[4];    /* process whose session it adds or takes */
  signed char cap, capnew;
  signed char loan, loannew;
  signed char gone;        /* 1 + process killed and not known to be reaped */
} judge;
}
c_state "judge J" "Global"
c_code {
  static int c_proc(int p) { return p < NP0 ? 0 : p - NP0 + 1; }
  static int c_wr(int p) { return p < TEAM ? 0 : p - TEAM + 1; }
  static const int j_w[5] = { 1, 3, 9, 27, 81 };
  static int j_has(int e) { return (int)(now.J.set[e >> 6] >> (e & 63)) & 1; }
  static int j_put(int e) { if (j_has(e)) return 0; now.J.set[e >> 6] |= 1ULL << (e & 63); return 1; }
  static int j_of(int e, int a) { return e % HALF / j_w[a] % (HALF == 108 && a == NT ? 4 : 3); }
  static int j_counts(int e, int proc) { return !(e >= HALF && now.J.gone == proc + 1); }
  static int j_inuse(int e) {
    int n = 0, i;
    for (i = 0; i < 4; i++) if (j_counts(e, i)) n += now.J.use[i];
    for (i = 0; i < 4; i++)
      if (now.J.what[i] && j_of(e, i) == 1 && now.J.whose[i] >= 0 && j_counts(e, now.J.whose[i])) {
        if (now.J.what[i] == J_ADMIT) n++;
        if (now.J.what[i] == J_RELEASE) n--;
      }
    return n;
  }
#ifdef LOAN
  static int j_lent(int loan) { return loan >= FAR ? loan - FAR : now.past ? 0 : loan; }
  static int j_smaller(int a, int b) {
    int n = a % FAR < b % FAR ? a % FAR : b % FAR;
    return n && a >= FAR && b >= FAR ? FAR + n : n;
  }
#else
  static int j_lent(int loan) { return 0; }
  static int j_smaller(int a, int b) { return 0; }
#endif
#define J_LAST(a) (HALF == 108 && now.J.what[a] == J_CAP ? 3 : 1)
  static int j_limit(int e) {
    int i;
    for (i = 0; i < 4; i++)
      if (now.J.what[i] == J_CAP)
        switch (j_of(e, i)) {
#if HALF == 81
        case 1: return now.J.capnew + j_lent(now.J.loan);
#else
        case 1: return now.J.cap + j_lent(j_smaller(now.J.loan, now.J.loannew));
        case 2: return now.J.capnew + j_lent(j_smaller(now.J.loan, now.J.loannew));
        case 3: return now.J.capnew + j_lent(now.J.loannew);
#endif
        }
    return now.J.cap + j_lent(now.J.loan);
  }
  static void j_close(void) {
    int again = 1, e, a;
    while (again)
      for (again = 0, e = 0; e < 2 * HALF; e++) {
        if (!j_has(e)) continue;
        for (a = 0; a < 4; a++) {
          if (!now.J.what[a] || j_of(e, a) && j_of(e, a) >= J_LAST(a)) continue;
          if (a < NT && !j_counts(e, c_proc(a))) continue;   /* its process is dead and gone */
          if (now.J.what[a] == J_ADMIT)
            again |= j_put(e + j_w[a] * (j_inuse(e) < j_limit(e) ? 1 : 2));
          else if (now.J.what[a] == J_RELEASE)
            again |= j_put(e + j_w[a] * (now.J.whose[a] < 0 || !j_counts(e, now.J.whose[a]) ? 2 : 1));
          else again |= j_put(e + j_w[a]);
        }
        if (now.J.gone && e < HALF) again |= j_put(e + HALF);
      }
  }
  static void j_call(int a, int what, int whose) { now.J.what[a] = what; now.J.whose[a] = whose; j_close(); }
  static void j_keep(int a, int r) {
    unsigned long long o[sizeof now.J.set / 8]; int e, any = 0;
    memcpy(o, now.J.set, sizeof o); memset(now.J.set, 0, sizeof o);
    for (e = 0; e < 2 * HALF; e++)
      if ((o[e >> 6] >> (e & 63) & 1) && j_of(e, a) == r) { j_put(e - r * j_w[a]); any = 1; }
    if (!any) now.bad = 1;
  }
  static void j_return(int a, int r) {
    j_keep(a, r);
    if (r == 1) {
      if (now.J.what[a] == J_ADMIT) now.J.use[now.J.whose[a]]++;
      if (now.J.what[a] == J_RELEASE && now.J.whose[a] >= 0) now.J.use[now.J.whose[a]]--;
      if (now.J.what[a] == J_CAP) now.J.cap = now.J.capnew;
    }
    if (r == 3) { now.J.cap = now.J.capnew; now.J.loan = now.J.loannew; }
    now.J.what[a] = 0; now.J.whose[a] = 0;
    if (!now.bad) j_close();
  }
  static void j_back(int a) {
    unsigned long long o[sizeof now.J.set / 8]; int e, any = 0;
    memcpy(o, now.J.set, sizeof o); memset(now.J.set, 0, sizeof o);
    for (e = 0; e < 2 * HALF; e++)
      if (o[e >> 6] >> (e & 63) & 1) {
        if (j_of(e, a) == 2 || j_of(e, a) == 1 && j_inuse(e) > j_limit(e)) { j_put(e - j_of(e, a) * j_w[a]); any = 1; }
      }
    if (!any) now.bad = 1;
    now.J.what[a] = 0; now.J.whose[a] = 0;
    if (!now.bad) j_close();
  }
  static void j_taken(int n) {
    int e, any = 0;
    for (e = 0; e < 2 * HALF; e++)
      if (j_has(e) && j_inuse(e) > n) now.J.set[e >> 6] &= ~(1ULL << (e & 63));
      else any |= j_has(e);
    if (!any) now.bad = 1; else j_close();
  }
  static void j_killed(int proc) { now.J.gone = proc + 1; j_close(); }
  static void j_reaped(int proc) {
    unsigned long long o[sizeof now.J.set / 8]; int e, a, d, any = 0;
    memcpy(o, now.J.set, sizeof o); memset(now.J.set, 0, sizeof o);
    for (e = HALF; e < 2 * HALF; e++)
      if (o[e >> 6] >> (e & 63) & 1) {
        d = e - HALF; any = 1;
        for (a = 0; a < NT; a++) if (c_proc(a) == proc) d -= j_of(d, a) * j_w[a];
        j_put(d);
      }
    if (!any) now.bad = 1;
    for (a = 0; a < 4; a++) {
      if (a < NT && c_proc(a) == proc) { now.J.what[a] = 0; now.J.whose[a] = 0; }
      else if (now.J.what[a] == J_RELEASE && now.J.whose[a] == proc) now.J.whose[a] = -1;
    }
    now.J.use[proc] = 0; now.J.gone = 0;
    if (!now.bad) j_close();
  }
  static void j_start(int cap, int loan) {
    memset(&now.J, 0, sizeof now.J); now.J.set[0] = 1; now.J.cap = cap; now.J.loan = loan;
  }
}

/* ---- names of numbers ------------------------------------------------------------------------------------------
 * Sequence numbers are only compared for equality, and A, R, G only as the difference G - (A - R). So after each
 * published operation they are renamed: the pool's number is 1, a pair's number 0 (whoever remembers the pair's current
 * number remembers 0 too, whoever remembers another one can never be equal again: STALE); R and A become 0, G becomes
 * the spare, and half-made reads move along. Without it the same situation would come back under endless new names.  */
c_code {
  static void rename_all(int me) {
    int q, i;
#ifndef RAWSEQ
    for (q = 0; q < NW; q++) {
      for (i = 0; i < NACT; i++) {
        if (i < NT && c_wr(i) == q && now.w0[i] != STALE) now.w0[i] = now.w0[i] == now.W[q].sq ? 0 : STALE;
        if (now.rs[i*NW+q] != STALE) now.rs[i*NW+q] = now.rs[i*NW+q] == now.W[q].sq ? 0 : STALE;
        if (now.lxt[i] == 1+q) now.lx[i] = now.lx[i] == now.W[q].sq ? 0 : STALE;
      }
      now.W[q].sq = 0;
    }
    for (q = 0; q < NPR; q++) {
      for (i = 0; i < NACT; i++) if (now.lxt[i] == 100+q) now.lx[i] = now.lx[i] == now.B[q].sq ? 0 : STALE;
      now.B[q].sq = 0;
    }
    for (i = 0; i < NACT; i++) now.ps[i] = i == me ? 1 : STALE;
    now.seq = 1;
#ifdef HINT
    now.hint = 0;
#endif
#endif
#ifndef MUT_ADMITS_FIRST
    for (q = 0; q < NW; q++) {
      int e = now.W[q].R, h = now.W[q].A - e;
      now.W[q].R = 0; now.W[q].A = 0; now.W[q].G -= h;
      for (i = 0; i < NACT; i++) if (now.lq[i] == 1+q) { now.lR[i] -= e; now.lG[i] -= h; now.lT[i] -= e+h; }
    }
#endif
  }
  /* An adjust was applied to writer q after the next one had been published: its number, which only now comes up, is
   * named 0, and who remembers the one before is out of date. */
  static void rename_late(int q) {
#ifndef RAWSEQ
    int i;
    for (i = 0; i < NACT; i++) {
      if (i < NT && c_wr(i) == q) now.w0[i] = STALE;
      now.rs[i*NW+q] = STALE;
      if (now.lxt[i] == 1+q) now.lx[i] = STALE;
    }
    now.W[q].sq = 0;
#endif
  }
  /* free + what writers and accounts hold == cap, a pending operation counted as applied */
  static void conserve(void) {
    int s = now.free, q;
    for (q = 0; q < NW; q++) s += now.W[q].C;
    for (q = 0; q < NPR; q++) s += now.B[q].bal;
    q = now.didx;
    if (HITS_W(now.dop) && now.W[q].sq != now.seq) {
      if (now.dop == O_ADJUST) s += now.damt - now.W[q].C;
      else if (now.dop <= O_GROW) s += now.damt;
      if (now.dop == O_SETTLE || now.dop == O_FOLD) s -= now.damt;
    }
    if (now.dop == O_FOLD && now.B[c_proc(q+TEAM-1)].sq != now.seq) s += now.damt;
    if (now.dop == O_BADJUST && now.B[q].sq != now.seq) s += now.damt;
    if (now.dop == O_FREE && now.B[q].sq != now.seq) s -= now.B[q].bal;
    if (s != now.capnow) now.bad = 2;
  }
  /* nothing runs any more: no credit may lie where nobody finds it */
  static void at_end(void) {
    int q, p, s = now.free, held = 0, lost = 0, open = 0;
    for (p = 0; p < NPR; p++) {
      if (now.dead[p] && now.B[p].live) lost = 1;
      held += now.avail[p];
    }
    for (q = 0; q < NW; q++) {
      int d, owner = c_proc(q+TEAM-1);
      if (now.dead[owner] && now.B[owner].live) continue;
      d = now.W[q].G - (now.W[q].A - now.W[q].R);
      if (now.dead[owner]) { if (now.W[q].C || now.W[q].ph != TIGHT) now.bad = 3; continue; }
      if (now.W[q].ph != TIGHT) { s += d; open++; if (d < 0) now.bad = 3; }
      else if (d != 0) now.bad = 3;
    }
    if (now.ndone + now.nlost < NT + CAPTURN) now.bad = 3;
    if (!lost && (s + held != now.capnow || open != now.loose)) now.bad = 3;
    if (lost && NREAP > 0) now.bad = 3;
  }
}

/* ---- memory ---------------------------------------------------------------------------------------------------- */
inline DRAINW(q) {
  W[q].A = W[q].A + (W[q].b0 == 1) + (W[q].b1 == 1);
  W[q].R = W[q].R + (W[q].b0 == 2) + (W[q].b1 == 2);
  W[q].b0 = 0; W[q].b1 = 0
}
inline PUT(q, x) { if :: W[q].b0 == 0 -> W[q].b0 = x :: else -> W[q].b1 = x fi }
#if SBN == 1
#define ROOM(q) (W[q].b0 == 0)
#else
#define ROOM(q) (W[q].b1 == 0)
#endif
#define HASCPU(p) ((p) < NT && !BARE(p) && !away[p])
#define SEE(p,q,x) (HASCPU(p) && WR(p) == (q) -> (W[q].b0 == x) + (W[q].b1 == x) : 0)
#define A_OF(p,q) (W[q].A + SEE(p,q,1))
#define R_OF(p,q) (W[q].R + SEE(p,q,2))
#define H_OF(p,q) (A_OF(p,q) - R_OF(p,q))
inline LOCKOP(p) { if :: HASCPU(p) -> DRAINW(WR(p)) :: else fi }     /* what every locked instruction does first */

/* ---- the pool -------------------------------------------------------------------------------------------------- */
inline HITW(o, q, am, s) {
  if
  :: o == O_ADJUST -> W[q].C = am
  :: o == O_TAKE -> W[q].C = W[q].C + am; W[q].G = W[q].G + am - 1
  :: o == O_TAKEO -> W[q].C = W[q].C + am; W[q].G = W[q].G + am - 1; W[q].ph = OPENED
  :: o == O_GROW -> W[q].C = W[q].C + am; W[q].G = W[q].G + am
  :: o == O_SETTLE -> W[q].C = W[q].C - am; W[q].G = W[q].G - am; W[q].ph = TIGHT
  :: o == O_OPEN -> W[q].G = W[q].G + 1; W[q].ph = OPENED
  :: o == O_WITHDRAW -> W[q].G = W[q].G + 1
#ifdef MUT_FOLDSPARE
  :: o == O_FOLD -> W[q].C = W[q].C - am; W[q].ph = TIGHT
#else
  :: o == O_FOLD -> W[q].C = W[q].C - am
#endif
  :: else
  fi;
  W[q].sq = s
}
#define ACC(o,ix) (o == O_FOLD -> PROC((ix)+TEAM-1) : (ix))
inline HITB(o, b, am, s) {
  if
  :: o == O_BADJUST || o == O_FOLD -> B[b].bal = B[b].bal + am
  :: o == O_FREE -> B[b].bal = 0; B[b].live = 0
  fi;
  B[b].sq = s
}
/* begin(): load the pool word and complete the operation it publishes. The load of a target and the look at the pool's
 * number are one step: the exchange succeeds only if the target did not change since the load. Once an operation is
 * applied its description is cleared (unless HINT): who would still look at it would find it applied and do nothing, and
 * who would follow an adjust finds the same credit in the account.                                                   */
inline LOADP(p) { d_step { RUN(p) -> pf = free; pl = loose; ps[p] = seq; pop = dop; pidx = didx; pamt = damt } }
#ifdef HINT
#define APPLIED(s) skip
#else
#define APPLIED(s) dop = O_NONE; didx = 0; damt = 0
#endif
#ifdef WHOLE
#define HELP(p) skip
#define BEGIN(p) LOADP(p)
#define FINISH(p) skip
#else
inline complete(p) {
#ifdef HINT
  d_step { RUN(p) -> if :: hint == ps[p] -> pop = O_NONE :: else fi };
#endif
  do
  :: !HITS_W(pop) -> break
  :: HITS_W(pop) ->
     atomic {
       d_step { RUN(p) ->
#ifdef MUT_NOSEQ
         if :: W[pidx].sq == ps[p] -> ok = 1
#else
         if :: W[pidx].sq == ps[p] || seq != ps[p] -> ok = 1
#endif
            :: else -> lx[p] = W[pidx].sq; lxt[p] = 1+pidx; xph = W[pidx].ph fi };
       if :: ok -> ok = 0; break :: else fi };
     atomic {
       d_step { RUN(p) -> LOCKOP(p);
         if :: W[pidx].sq == lx[p] && W[pidx].ph == xph -> HITW(pop, pidx, pamt, ps[p]); ok = 1;
               if :: ps[p] == STALE -> me_ = pidx; c_code { rename_late(now.me_); }; me_ = 0 :: else fi;
               if :: pop != O_FOLD && seq == ps[p] -> APPLIED(ps[p]) :: else fi
            :: else fi;
         lx[p] = 0; lxt[p] = 0; xph = 0 };
       if :: ok -> ok = 0; break :: else fi }
  od;
  do
  :: !HITS_B(pop) -> break
  :: HITS_B(pop) ->
     atomic {
       d_step { RUN(p) -> xb = ACC(pop, pidx);
         if :: B[xb].sq == ps[p] || seq != ps[p] -> ok = 1
            :: else -> lx[p] = B[xb].sq; lxt[p] = 100+xb fi };
       if :: ok -> ok = 0; xb = 0; break :: else fi };
     atomic {
       d_step { RUN(p) -> LOCKOP(p);
         if :: B[xb].sq == lx[p] -> HITB(pop, xb, pamt, ps[p]); ok = 1; APPLIED(ps[p])
            :: else fi;
         lx[p] = 0; lxt[p] = 0; xb = 0 };
       if :: ok -> ok = 0; break :: else fi }
  od;
#ifdef HINT
  skip; d_step { RUN(p) -> if :: pop != O_NONE -> hint = ps[p] :: else fi; pop = O_NONE; pidx = 0; pamt = 0 }
#else
  atomic { pop = O_NONE; pidx = 0; pamt = 0 }
#endif
}
#ifdef MUT_HALFTXN             /* a pending operation is left to the thread that published it */
#define HELP(p) d_step { NOHELP }
#else
#define HELP(p) complete(p)
#endif
#define BEGIN(p) LOADP(p); HELP(p)
#define FINISH(p) if :: won -> complete(p) :: else fi
#endif
#define NOHELP pop = O_NONE; pidx = 0; pamt = 0
#ifdef MUT_HALFTXN
#define LAZY skip
#else
#define LAZY won = 0           /* an adjust is published, and left to whoever comes next */
#endif

/* publish an operation; DO happens in the same instant */
#ifdef WHOLE
#define AIM(o,ix,am) if :: HITS_W(o) -> HITW(o, ix, am, seq) :: else fi; \
    if :: HITS_B(o) -> xb = ACC(o, ix); HITB(o, xb, am, seq); xb = 0 :: else fi
#define KEEP skip
#else
#ifdef HINT
#define AIM(o,ix,am) dop = o; didx = ix; damt = am
#else
#define AIM(o,ix,am) if :: o != O_CAP -> dop = o; didx = ix; damt = am :: else -> APPLIED(seq) fi
#endif
#define KEEP pop = dop; pidx = didx; pamt = damt
#endif
#define TXN(p,df,dl,o,ix,am,DO) d_step { RUN(p) -> LOCKOP(p); \
    if :: seq == ps[p] -> won = 1; xam = am; free = free + (df); loose = loose + (dl); \
          me_ = p; NEXTSEQ; AIM(o,ix,xam); KEEP; xam = 0; DO; c_code { conserve(); }; me_ = 0; assert(bad == 0) \
       :: else -> won = 0 fi }
#ifdef RAWSEQ
#define NEXTSEQ seq++; ps[p] = seq; c_code { rename_all(now.me_); }
#else
#define NEXTSEQ c_code { rename_all(now.me_); }
#endif

/* ---- calls ----------------------------------------------------------------------------------------------------- */
#define SAY(p,code) me_ = p; code; me_ = 0; assert(bad == 0)
#define CALL_ADMIT(p)     ag_ = PROC(p); SAY(p, c_code { j_call(now.me_, J_ADMIT, now.ag_); }); ag_ = 0
#define CALL_RELEASE(p,o) avail[o]--; ag_ = o; SAY(p, c_code { j_call(now.me_, J_RELEASE, now.ag_); }); ag_ = 0
#define GOT(p)     SAY(p, c_code { j_return(now.me_, 1); }); avail[PROC(p)]++; fin = 1
#define GAVE(p)    SAY(p, c_code { j_return(now.me_, 1); }); fin = 1
#define REFUSED(p) SAY(p, c_code { j_return(now.me_, 2); }); fin = 1
#define NIL        skip
#ifdef LOAN
#define GAVEBACK(p) SAY(p, c_code { j_back(now.me_); }); fin = 1
#endif

#define LOCALS short pf = 0; byte pl = 0; byte pop = 0; byte pidx = 0; short pamt = 0; bit ok = 0; byte xph = 0; byte xb = 0; \
  bit won = 0; short xam = 0; byte q = 0; byte act = 0; byte g = 0; short sp = 0; byte lph = 0;
#define FORGET pf = 0; pl = 0; pop = 0; pidx = 0; pamt = 0; won = 0; sp = 0; lph = 0; g = 0; ps[p] = STALE; \
  lq[p] = 0; lG[p] = 0; lR[p] = 0

/* what to do next */
#define GO_ON   0
#define COLLECT 1
#define THAW    2
#define EMPTY   3          /* collected: no loose writer, and the pool as it was */

inline PICK(mx) { if :: g = 1 :: mx > 1 -> g = 2 :: mx > 2 -> g = 3 fi }
#define RSEEN rs[p*NW+q]

/* read the word of a writer (with the gate), then R, then A */
#define WORD(w) lph = W[w].ph; lG[p] = W[w].G; lq[p] = 1+(w)
#define READ_R(w) lR[p] = R_OF(p,w)
#define READ_A(w) sp = lG[p] - (A_OF(p,w) - lR[p]); lq[p] = 0; lG[p] = 0; lR[p] = 0
#ifdef ONEREAD                 /* R and A in one step: for large instances */
#define FIRSTREAD(w) skip
#define LASTREAD(w) READ_R(w); READ_A(w)
#else
#ifdef MUT_ADMITS_FIRST        /* A, then R */
#define FIRSTREAD(w) d_step { RUN(p) -> lR[p] = A_OF(p,w) }
#define LASTREAD(w) sp = lG[p] - (lR[p] - R_OF(p,w)); lq[p] = 0; lG[p] = 0; lR[p] = 0
#else
#define FIRSTREAD(w) d_step { RUN(p) -> READ_R(w) }
#define LASTREAD(w) READ_A(w)
#endif
#endif

/* act == COLLECT: freeze every open writer; act == THAW: rs[] already names the caller's own frozen writer.
 * Then the fence, then every remembered writer is settled. Load and exchange of a freeze are one step: an exchange that
 * fails starts the same writer over.                                                                               */
inline sweep(p) {
  if
  :: act == COLLECT ->
     do
     :: d_step { RUN(p) && q < NW ->
          if
          :: W[q].ph == TIGHT
          :: else -> if :: W[q].ph == OPENED -> LOCKOP(p); W[q].ph = FROZEN :: else fi; RSEEN = W[q].sq
          fi;
          q++ }
     :: atomic { q >= NW -> q = 0; break }
     od;
     atomic {
       d_step { RUN(p) -> ok = 1;
         do :: q < NW -> if :: RSEEN != STALE -> ok = 0 :: else fi; q++ :: else -> break od;
         q = 0;
         if
         :: ok && seq == ps[p] -> act = EMPTY
         :: !ok && free > 0 -> ok = 1                /* somebody was faster */
         :: else
         fi };
       if :: ok -> ok = 0; d_step { do :: q < NW -> RSEEN = STALE; q++ :: else -> break od; q = NW } :: else fi }
  :: else
  fi;
#ifndef MUT_NOFENCE
#ifdef MUT_THAWNOFENCE
  if
  :: act == THAW -> q = NW
  :: else
  fi;
#else
  if
  :: act == THAW && OWNER(p) -> q = NW
  :: else
  fi;
#endif
  do
  :: d_step { RUN(p) && q < NW -> DRAINW(q); q++ }
  :: atomic { q >= NW -> q = 0; break }
  od;
#endif
  q = 0;
  do
  :: atomic { q < NW && RSEEN == STALE -> q++ }
  :: q < NW && RSEEN != STALE ->
     BEGIN(p);
     atomic {
       d_step { RUN(p) -> WORD(q);
#ifdef MUT_NORECHECK
         ok = (lph != FROZEN) };
#else
         ok = (lph != FROZEN || W[q].sq != RSEEN) };
#endif
       if :: ok -> ok = 0; RSEEN = STALE; goto settled :: else fi };
     FIRSTREAD(q);
     d_step { RUN(p) -> LASTREAD(q); if :: sp < 0 -> sp = 0 :: else fi };
     TXN(p, sp, -1, O_SETTLE, q, sp, NIL);
     if :: won -> RSEEN = STALE :: else fi;
     FINISH(p);
settled:
     atomic { FORGET }
  :: atomic { q >= NW -> q = 0; if :: act == EMPTY :: else -> act = GO_ON; FORGET fi; break }
  od
}

/* ---- a thread -------------------------------------------------------------------------------------------------- */
#define FA 1     /* fast admit */
#define SA 2     /* slow admit */
#define RA 3     /* the claim met a change */
#define FR 4
#define SR 5
#define RR 6
#define DA 7     /* without a writer */
#define DR 8
#define LENT 9   /* a session is taken on a loan, the clock is to be read */
#define LATE 10  /* the time was over */

#ifdef SHARD
#ifdef NOMIG
#define MAYMOVE(p) skip
#else
#define MAYMOVE(p) if :: HASCPU(p) && WR(p) == 0 -> LOCKOP(p); away[p] = 1 :: skip fi
#endif
#define ENTER(p) if :: WR(p) == 0 -> insec = (p)+1 :: else fi
#define LEAVE(p) if :: WR(p) == 0 -> insec = 0 :: else fi
#define SECFREE(p) (WR(p) != 0 || insec == 0)
#else
#define MAYMOVE(p) skip
#define ENTER(p) skip
#define LEAVE(p) skip
#define SECFREE(p) 1
#endif
#ifdef LOCKED
#define BYLOCK(p) (WR(p) == 0)
#else
#define BYLOCK(p) 0
#endif
/* whether a change may be resolved on a tight gate without a transaction when no credit moves */
#ifdef OWNERQUIET
#define QUIET_OWNER(p) OWNER(p)
#else
#define QUIET_OWNER(p) 0
#endif
#ifdef MUT_SELFGRANT           /* a claim on a tight gate is taken for covered without one */
#define QUIET_ADMIT(p) 1
#else
#define QUIET_ADMIT(p) QUIET_OWNER(p)
#endif
#ifdef MUT_QUIETRELEASE        /* a release that finds nothing to give back makes none */
#define QUIET_RELEASE(p) 1
#else
#define QUIET_RELEASE(p) QUIET_OWNER(p)
#endif

#define MINE(p) rs[p*NW+WR(p)] = W[WR(p)].sq     /* a frozen writer of my own, as it is now */
#ifdef LOAN
#ifdef MUT_BORROWLOOSE         /* borrowed while writers have spare sessions */
#define BORROWS (mode == SA && pf <= 0)
#else
#define BORROWS (mode == SA && pf <= 0 && pl == 0)
#endif
#define FULL (mode == SA && asks && pf <= -lent && pl == 0)
#ifdef MUT_ALWAYSBACK          /* a late session goes back also where the cap covers it by now */
#define COVERED 0
#define GOESBACK (mode == LATE && pl == 0)
#else
#define COVERED (mode == LATE && pf >= 0)
#define GOESBACK (mode == LATE && pf < 0 && pl == 0)
#endif
#define ADJUSTSLOAN (BORROWS || GOESBACK)
/* reads no clock: whoever finds the time over takes the loan away */
#define LOOK(p) d_step { RUN(p) -> ln = loan; lent = SESSIONS(ln) }
#ifdef MUT_CLOCKFIRST          /* no look at the clock after the session was taken */
#define ONLOAN(p) GOT(p)
#else
#define ONLOAN(p) mode = LENT
#endif
#define FORGETLOAN ln = 0; lent = 0; asks = 0
#define NEXTLOAN lent = 0; asks = 0; if :: mode == LENT :: else -> ln = 0 fi
#else
#define FULL (mode == SA && pf <= 0 && pl == 0)
#define COVERED 0
#define ADJUSTSLOAN 0
#define FORGETLOAN skip
#define NEXTLOAN skip
#endif
#define MAYADJUST (mode == SR || mode == SA && pf > 0 || ADJUSTSLOAN)
/* The credit that an adjust starts from: of the pending one, or else of the account. While an adjust of a writer is
 * pending the writer is tight (asserted).                                                                          */
inline CREDIT(p) {
  if
#ifdef MUT_FOLLOWDELTA         /* starts from what the account says, not from what is pending */
  :: lph == TIGHT -> cr = W[WR(p)].C
#else
  :: lph == TIGHT -> if :: fo :: else -> cr = W[WR(p)].C fi
#endif
  :: else -> assert(!fo || seq != ps[p]); cr = 0; if :: lph == FROZEN -> MINE(p) :: else fi
  fi
}

proctype thread(byte p) {
  LOCALS
  byte k = 0; byte mode = 0; bit fin = 0; byte who = 0;
  bit fo = 0; short cr = 0;      /* an adjust that follows a pending one; the credit it starts from */
#ifdef LOAN
  byte ln = 0; byte lent = 0;    /* the loan as it was read, and its sessions */
  bit asks = 0;                  /* it was read before the pool, which may turn out to be full */
#endif
  {
  do
  :: atomic { (OPS(p) == 0 || k < OPS(p)) ->
     if
     :: d_step { CALL_ADMIT(p); mode = (BARE(p) -> DA : FA) }
     :: d_step { avail[PROC(p)] > 0 -> who = PROC(p); CALL_RELEASE(p, PROC(p)); mode = (BARE(p) -> DR : FR) }
#ifdef FOREIGN
     :: d_step { avail[(PROC(p)+1)%NPR] > 0 && NOTKILLER(p) -> who = (PROC(p)+1)%NPR; CALL_RELEASE(p, who); mode = DR }
#endif
     fi;
     if :: OPS(p) != 0 -> k++ :: else fi };
     do
     :: atomic { fin -> fin = 0; mode = 0; who = 0; away[p] = 0; FORGETLOAN; FORGET; break }
     :: else ->
        if
        /* -- fast paths: test and store, then look again at the word -- */
        :: mode == FA && !BYLOCK(p) ->
           atomic {
             d_step { SECFREE(p) -> away[p] = 0;       /* a section runs on the CPU of its writer or not at all */
               if :: W[WR(p)].ph == OPENED && W[WR(p)].G - H_OF(p,WR(p)) >= 1 -> w0[p] = W[WR(p)].sq; ENTER(p); ok = 1
                  :: else -> mode = SA fi };
             if :: !ok -> MAYMOVE(p) :: else fi };
           if
           :: ok ->
              atomic { d_step { RUN(p) && ROOM(WR(p)) -> ok = 0; PUT(WR(p), 1); LEAVE(p) }; MAYMOVE(p) };
              d_step { RUN(p) ->
#ifdef MUT_NOPOSTCHECK
                GOT(p);
#else
                if :: W[WR(p)].ph == OPENED && W[WR(p)].sq == w0[p] -> GOT(p) :: else -> mode = RA fi;
#endif
                w0[p] = STALE }
           :: else
           fi
        :: mode == FR && !BYLOCK(p) ->
           atomic {
             d_step { SECFREE(p) -> away[p] = 0;       /* a section runs on the CPU of its writer or not at all */
               if :: W[WR(p)].ph == OPENED -> w0[p] = W[WR(p)].sq; ENTER(p); ok = 1
                  :: else -> mode = SR fi };
             if :: !ok -> MAYMOVE(p) :: else fi };
           if
           :: ok ->
              atomic { d_step { RUN(p) && ROOM(WR(p)) -> ok = 0; PUT(WR(p), 2); LEAVE(p) }; MAYMOVE(p) };
              d_step { RUN(p) ->
#ifdef MUT_NOPOSTCHECK
                GAVE(p);
#else
                if :: W[WR(p)].ph == OPENED && W[WR(p)].sq == w0[p] -> GAVE(p) :: else -> mode = RR fi;
#endif
                w0[p] = STALE }
           :: else
           fi
#ifdef LOCKED
        :: mode == FA && BYLOCK(p) ->
           d_step { if :: W[0].ph == OPENED && W[0].G - (W[0].A - W[0].R) >= 1 -> w0[p] = W[0].sq; ok = 1 :: else -> mode = SA fi };
           if
           :: ok ->
              d_step { ok = 0; W[0].A++; lT[p] = W[0].A; lq[p] = 1 };
              d_step { if :: W[0].ph == OPENED && W[0].sq == w0[p] -> lG[p] = W[0].G :: else -> mode = RA; lT[p] = 0; lq[p] = 0 fi; w0[p] = STALE };
              if
              :: mode == FA ->
                 d_step { if :: lG[p] - (lT[p] - W[0].R) >= 0 -> GOT(p) :: else -> mode = RA fi; lT[p] = 0; lG[p] = 0; lq[p] = 0 }
              :: else
              fi
           :: else
           fi
        :: mode == FR && BYLOCK(p) ->
           d_step { if :: W[0].ph == OPENED -> w0[p] = W[0].sq; ok = 1 :: else -> mode = SR fi };
           if
           :: ok ->
              d_step { ok = 0; W[0].R++ };
              d_step { if :: W[0].ph == OPENED && W[0].sq == w0[p] -> GAVE(p) :: else -> mode = RR fi; w0[p] = STALE }
           :: else
           fi
#endif
#ifdef LOAN
        :: mode == SA && !asks -> LOOK(p); asks = 1
#ifdef MUT_KEEPLATE            /* who is late keeps its session, and says that it has none */
        :: mode == LENT -> d_step { RUN(p) -> if :: !OVER(ln) -> GOT(p) :: else -> REFUSED(p) fi }
#else
        :: mode == LENT ->
           d_step { RUN(p) -> if :: !OVER(ln) -> GOT(p) :: else -> mode = LATE fi };
           if
           :: mode == LATE -> d_step { RUN(p) -> LOCKOP(p); if :: loan == ln -> loan = 0 :: else fi; ln = 0 }
           :: else
           fi
#endif
#endif
        /* -- everything else begins with the pool, and applies the pending operation, but: a refusal looks at the pool
         *    word only (between two looks at the loan), and so does a late session that the cap covers; an adjust of the
         *    same writer is followed by the next one (or applied, if the gate is to open) -- */
        :: else ->
           atomic {
             LOADP(p);
             if
             :: FULL || COVERED -> NOHELP
#ifdef LOAN
             :: BORROWS && pop == O_ADJUST && pidx == WR(p) -> asks = 0; fo = 1; cr = pamt; NOHELP
             :: BORROWS -> asks = 0
             :: !BORROWS && MAYADJUST && pop == O_ADJUST && pidx == WR(p) -> fo = 1; cr = pamt; NOHELP
#else
             :: MAYADJUST && pop == O_ADJUST && pidx == WR(p) -> fo = 1; cr = pamt; NOHELP
#endif
#ifdef MUT_NOCOMPLETE           /* collected with an operation pending */
             :: mode == SA && pf <= 0 && pl > 0 -> NOHELP
#endif
#ifdef MUT_FOLLOWANY            /* published on top of an operation for another writer */
             :: MAYADJUST && HITS_W(pop) && pidx != WR(p) -> NOHELP
#endif
#ifdef LOAN
             :: !FULL && !COVERED && !BORROWS
#else
             :: !FULL
#endif
             fi };
           HELP(p);
           if
           :: mode == SA ->
              if
#ifdef MUT_NOLOOSE             /* refuse although others may hold spare credit */
              :: pf <= 0 -> d_step { RUN(p) -> REFUSED(p) }
#else
#ifdef LOAN
#ifdef MUT_NOLOOKAGAIN         /* refused without a second look at the loan */
              :: FULL -> d_step { RUN(p) -> REFUSED(p) }
#else
              :: FULL -> d_step { RUN(p) -> if :: loan == ln -> REFUSED(p) :: else fi }
#endif
              :: BORROWS && !asks ->
#ifndef MUT_LOANFIRST          /* borrowed by what was read before the pool */
                 LOOK(p);
#endif
                 if
                 :: lent > -pf ->
                    d_step { RUN(p) -> WORD(WR(p)); lG[p] = 0; lq[p] = 0; CREDIT(p) };
                    if
                    :: lph == TIGHT -> TXN(p, -1, 0, O_ADJUST, WR(p), cr+1, ONLOAN(p); LAZY)
                    :: lph != TIGHT
                    fi
#ifdef MUT_POOLFIRST           /* refused by a loan that was read after the pool */
                 :: else -> d_step { RUN(p) -> REFUSED(p) }
#else
                 :: else
#endif
                 fi
#else
              :: FULL -> d_step { RUN(p) -> REFUSED(p) }
#endif
              :: pf <= 0 && pl > 0 -> act = COLLECT
#endif
              :: pf > 0 ->
                 d_step { RUN(p) -> WORD(WR(p)); READ_R(WR(p)); READ_A(WR(p)); CREDIT(p) };
                 if
                 :: lph == OPENED && sp > 0 -> mode = FA
                 :: lph == OPENED && sp <= 0 -> atomic { PICK(pf); TXN(p, -g, 0, O_TAKE, WR(p), g, GOT(p)) }
                 :: lph == TIGHT && !fo -> atomic { PICK(pf); TXN(p, -g, 1, O_TAKEO, WR(p), g, GOT(p)) }
                 :: lph == TIGHT -> TXN(p, -1, 0, O_ADJUST, WR(p), cr+1, GOT(p); LAZY)
                 :: lph == FROZEN -> atomic { PICK(pf); TXN(p, -g, 0, O_TAKEO, WR(p), g, GOT(p)) }
#ifdef FOLDS
                 :: W[WR(p)].C != 0 -> TXN(p, 0, 0, O_FOLD, WR(p), W[WR(p)].C, NIL)
#endif
                 :: lph == FROZEN -> act = THAW
                 fi
              fi
           :: mode == RA ->
              d_step { RUN(p) -> WORD(WR(p)); if :: lph == FROZEN -> act = THAW; MINE(p) :: else fi };
              if
              :: act == GO_ON ->
                 FIRSTREAD(WR(p));
                 d_step { RUN(p) -> LASTREAD(WR(p));
                   if :: sp >= 0 && (lph == OPENED || QUIET_ADMIT(p)) -> GOT(p) :: else fi };
                 if
                 :: fin
                 :: !fin && sp >= 0 -> TXN(p, 0, 0, O_CONFIRM, WR(p), 0, GOT(p))
                 :: !fin && sp < 0 && pf > 0 -> TXN(p, -1, 0, O_GROW, WR(p), 1, GOT(p))
                 :: !fin && sp < 0 && pf <= 0 && lph == TIGHT && pl == 0 ->
#ifdef LOAN
                    LOOK(p);
                    if
                    :: lent > -pf -> TXN(p, -1, 0, O_GROW, WR(p), 1, ONLOAN(p))
                    :: else -> TXN(p, 0, 0, O_WITHDRAW, WR(p), 0, REFUSED(p))
                    fi
#else
#ifdef MUT_PLAINWITHDRAW       /* the claim is taken back by a release, not by a pool operation */
                    d_step { RUN(p) -> W[WR(p)].R++; REFUSED(p) }
#else
                    TXN(p, 0, 0, O_WITHDRAW, WR(p), 0, REFUSED(p))
#endif
#endif
                 :: !fin && sp < 0 && pf <= 0 && !(lph == TIGHT && pl == 0) -> act = COLLECT
                 fi
              :: else
              fi
#ifdef LOAN
           :: mode == LATE ->
              if
              :: COVERED -> d_step { RUN(p) -> GOT(p) }
              :: GOESBACK ->
#ifndef MUT_OLDLOAN            /* the loan of today does not count */
                 LOOK(p);
#endif
                 if
                 :: pf < 0 && lent >= -pf -> d_step { RUN(p) -> if :: seq == ps[p] -> mode = LENT :: else fi }
                 :: !(pf < 0 && lent >= -pf) ->
                    d_step { RUN(p) -> WORD(WR(p)); lG[p] = 0; lq[p] = 0; CREDIT(p) };
                    if
                    :: lph == TIGHT -> TXN(p, 1, 0, O_ADJUST, WR(p), cr-1, GAVEBACK(p); LAZY)
                    :: lph != TIGHT
                    fi
                 fi
              :: !COVERED && !GOESBACK -> act = COLLECT
              fi
#endif
           :: mode == SR ->
              d_step { RUN(p) -> WORD(WR(p)); lG[p] = 0; lq[p] = 0; CREDIT(p) };
              if
              :: lph == OPENED -> mode = FR
              :: lph == FROZEN -> act = THAW
              :: lph == TIGHT -> TXN(p, 1, 0, O_ADJUST, WR(p), cr-1, GAVE(p); LAZY)
#ifdef MUT_DEBT                /* credit is kept on a writer although the cap is overdrawn */
              :: lph == TIGHT && !fo -> TXN(p, 0, 1, O_OPEN, WR(p), 0, GAVE(p))
#else
              :: lph == TIGHT && !fo && pf >= OPENMIN -> TXN(p, 0, 1, O_OPEN, WR(p), 0, GAVE(p))
#endif
              fi
           :: mode == RR ->
              atomic {
                d_step { RUN(p) -> WORD(WR(p));
                  if
                  :: lph == OPENED -> GAVE(p); lG[p] = 0; lq[p] = 0
                  :: lph == FROZEN -> act = THAW; MINE(p)
                  :: else
                  fi } };
              if
              :: !fin && act == GO_ON ->
                 FIRSTREAD(WR(p));
                 d_step { RUN(p) -> LASTREAD(WR(p));
                   if :: sp <= 0 -> sp = 0; if :: QUIET_RELEASE(p) -> GAVE(p) :: else fi :: else fi };
                 if
                 :: fin
                 :: !fin -> TXN(p, sp, 0, O_SETTLE, WR(p), sp, GAVE(p))
                 fi
              :: else
              fi
           :: mode == DA ->
              if
              :: pf <= 0 && pl == 0 -> d_step { RUN(p) -> REFUSED(p) }
              :: pf <= 0 && pl > 0 -> act = COLLECT
              :: pf > 0 -> TXN(p, -1, 0, O_BADJUST, PROC(p), 1, GOT(p))
              fi
           :: mode == DR ->
              atomic { if :: !B[who].live -> d_step { REFUSED(p) } :: else fi };
              if
              :: !fin -> TXN(p, 1, 0, O_BADJUST, who, -1, GAVE(p))
              :: else
              fi
           fi;
           FINISH(p);
           atomic { g = 0; fo = 0; cr = 0; NEXTLOAN; if :: act == GO_ON -> rs[p*NW+WR(p)] = STALE; FORGET :: else fi };
           if
           :: act != GO_ON -> sweep(p);
              if
              :: act == EMPTY ->      /* damaged memory, or so it seems: the answer is no */
                 atomic { act = GO_ON; d_step { RUN(p) -> assert(mode == SA || mode == DA); REFUSED(p) }; FORGET }
              :: else
              fi
           :: else
           fi
        fi
     od
  :: (OPS(p) == 0 || k >= OPS(p)) -> break
  od
#ifdef CRASH
  } unless { dead[PROC(p)] };
#else
  };
#endif
  skip;
  d_step {
    FORGET; k = 0; mode = 0; fin = 0; who = 0; act = 0; ok = 0; fo = 0; cr = 0; FORGETLOAN; xph = 0; xb = 0; q = 0; away[p] = 0; w0[p] = STALE;
    lx[p] = 0; lxt[p] = 0; lT[p] = 0;
    do :: q < NW -> RSEEN = STALE; q++ :: else -> break od; q = 0;
    if :: dead[PROC(p)] -> nlost++ :: else -> ndone++ fi
  }
}

#ifdef CRASH
proctype killer() {
  byte q = 0;
  if
  :: d_step { dead[CRASH] = 1;
       do
       :: q < NW -> if :: PROC(q+TEAM-1) == CRASH -> DRAINW(q) :: else fi; q++
       :: else -> break
       od;
       q = 0;
#ifdef SHARD
       if :: insec != 0 && PROC(insec-1) == CRASH -> insec = 0 :: else fi;
#endif
       ag_ = CRASH; c_code { j_killed(now.ag_); }; ag_ = 0 }
  :: skip
  fi
}
proctype reaper(byte p) {
  LOCALS
  byte i = 0; bit fin = 0; short am = 0;
end:
  dead[CRASH] ->
  do
  :: i < NW && PROC(i+TEAM-1) != CRASH -> i++
  :: i < NW && PROC(i+TEAM-1) == CRASH ->
     BEGIN(p);
     atomic { d_step { lph = W[i].ph; sp = W[i].C; am = W[i].G - (W[i].A - W[i].R) };
       if
       :: !B[CRASH].live || (lph == TIGHT && sp == 0) -> i++
#ifdef MUT_FOLDSPARE           /* spare sessions of the dead go the long way with its sessions */
       :: B[CRASH].live && !(lph == TIGHT && sp == 0) -> TXN(p, 0, (lph == TIGHT -> 0 : -1), O_FOLD, i, sp, NIL)
#else
       :: B[CRASH].live && lph != TIGHT ->
          if :: am < 0 -> am = 0 :: else fi;
          TXN(p, am, -1, O_SETTLE, i, am, NIL)
       :: B[CRASH].live && lph == TIGHT && sp != 0 -> TXN(p, 0, 0, O_FOLD, i, sp, NIL)
#endif
       fi };
     FINISH(p);
     atomic { FORGET; am = 0 }
  :: i >= NW -> break
  od;
  i = 0;
  do
  :: BEGIN(p);
     atomic { d_step { sp = B[CRASH].bal };
       if
       :: !B[CRASH].live -> break
       :: else -> TXN(p, sp, 0, O_FREE, CRASH, 0, avail[CRASH] = 0; ag_ = CRASH; c_code { j_reaped(now.ag_); }; ag_ = 0)
       fi };
     FINISH(p);
     atomic { FORGET }
  od;
  atomic { FORGET; i = 0; fin = 0 }
}
#endif

#ifdef LOAN
/* The keeper, also after a deadline, relies on what the pool has taken. */
#define TAKEN d_step { ag_ = capnow - free; c_code { j_taken(now.ag_); }; ag_ = 0; assert(bad == 0) }
#define NEWLOAN (LOAN2 > 0 -> LOAN2 + LATER : 0)
#define LESSER (LOAN < LOAN2 -> LOAN : LOAN2)
#endif
#ifdef CAP2
proctype capper(byte p) {
  LOCALS
  bit fin = 0;
#ifdef LOAN2
  byte lesser = 0;
  d_step { me_ = p; ag_ = NEWLOAN;
    c_code { now.J.capnew = CAP2; now.J.loannew = now.ag_; j_call(now.me_, J_CAP, 0); }; me_ = 0; ag_ = 0 };
#ifdef MUT_NOMIN               /* the new loan at once, though the cap is still the old one */
  loan = NEWLOAN;
#else
  lesser = (loan == 0 -> 0 : LESSER);
  loan = lesser;
#endif
#else
  d_step { me_ = p; c_code { now.J.capnew = CAP2; j_call(now.me_, J_CAP, 0); }; me_ = 0 };
#endif
#ifndef MUT_NOBUMP              /* no transaction after the smaller loan is stored */
  do
  :: BEGIN(p);
     TXN(p, CAP2-CAP, 0, O_CAP, 0, 0, capnow = CAP2);
     if :: won -> break :: else fi
  od;
  atomic { FORGET };
#endif
  do
  :: BEGIN(p);
     if
#ifndef MUT_CAPNOCOLLECT       /* the spare credit of the writers is left where it is */
     :: pf < 0 && pl > 0 -> act = COLLECT; sweep(p); assert(act == GO_ON)
     :: !(pf < 0 && pl > 0) -> break
#else
     :: break
#endif
     fi
  od;
#ifdef LOAN2
  loan = NEWLOAN;
#ifndef MUT_RAISEQUIET         /* no transaction after the new loan is stored */
  do
  :: NEWLOAN == lesser -> break
  :: NEWLOAN != lesser ->
     BEGIN(p);
     TXN(p, 0, 0, O_CAP, 0, 0, NIL);
     if :: won -> break :: else fi
  od;
#endif
  skip; d_step { FORGET; SAY(p, c_code { j_return(now.me_, 3); }); fin = 0; ndone++ };
  TAKEN
#else
  skip; d_step { FORGET; GAVE(p); fin = 0; ndone++ }
#endif
}
#endif
#ifdef LOAN
proctype clock() {
  d_step { past = 1; c_code { j_close(); } };
  TAKEN
}
#endif

inline FLUSH(x) {
  W[x].A = W[x].A + (W[x].b0 == 1); W[x].R = W[x].R + (W[x].b0 == 2); W[x].b0 = W[x].b1; W[x].b1 = 0
}
proctype flusher() {
  byte q = 0;
end:
  do
  :: d_step { W[0].b0 != 0 -> FLUSH(0) }
#if NW > 1
  :: d_step { W[1].b0 != 0 -> FLUSH(1) }
#endif
#if NW > 2
  :: d_step { W[2].b0 != 0 -> FLUSH(2) }
#endif
  od
}

proctype finish() {
  timeout;
  d_step { c_code { at_end(); }; assert(bad == 0) }
}

init {
  byte i = 0;
  atomic {
    #ifdef LOAN
    c_code { j_start(CAP, LOAN); };
#else
    c_code { j_start(CAP, 0); };
#endif
    do :: i < NPR -> B[i].live = 1; i++ :: else -> break od; i = 0;
    do :: i < NACT -> w0[i] = STALE; ps[i] = STALE; i++ :: else -> break od; i = 0;
    do :: i < NACT*NW -> rs[i] = STALE; i++ :: else -> break od; i = 0;
    run finish(); run flusher();
#ifdef CRASH
    run killer();
    do :: i < NREAP -> run reaper(REAPER0+i); i++ :: else -> break od; i = 0;
#endif
#ifdef LOAN
    run clock();
#endif
#ifdef CAP2
    run capper(CAPPER);
#endif
    do :: i < NT -> run thread(i); i++ :: else -> break od; i = 0
  }
}
