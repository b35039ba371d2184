/* The life of a process slot: a process has died, reapers run (some of them stopped for a while and then stale), a newcomer
 * takes the slot's lock, reaps what is left, resets the writer, goes live, uses the writer, and may die as well.
 *
 *   -DNREAP=n   reapers (default 2), each looks at the slot -DROUNDS times (default 1)
 *   -DNNEW=n    newcomers, one after another (default 1)       -DK=n  operations of each
 *   -DKILLS=n   newcomers that may be killed (default 1), at any step
 *   -DMUT_NOINC     reapers do not compare the incarnation
 *   -DMUT_INCLATE   the incarnation is read after the lock was tested
 *   -DMUT_NOREAP    a newcomer does not reap what the last holder has left
 *
 * One pool, one slot with one writer. Fences and store buffers are left out: nobody but the writer's owner and reapers of the
 * dead touches it here (engine.pml has the rest).                                                                     */

#ifndef NREAP
#define NREAP 2
#endif
#ifndef ROUNDS
#define ROUNDS 1
#endif
#ifndef NNEW
#define NNEW 1
#endif
#ifndef K
#define K 2
#endif
#ifndef KILLS
#define KILLS 1
#endif
#define CAP  2
#define NACT (NREAP+NNEW+1)

#define TIGHT  0
#define OPENED 1
#define FROZEN 2

#define O_NONE   0
#define O_ADJUST 1
#define O_TAKEO  2
#define O_SETTLE 3
#define O_FOLD   4          /* the writer, then the balance */
#define O_BADJUST 5         /* from here on the balance only */
#define O_FREE   6
#define O_LIVE   7
#define HITS_W(o) ((o) >= O_ADJUST && (o) <= O_FOLD)
#define HITS_B(o) ((o) >= O_FOLD)
#define STALE 255

short free; byte loose = 0; byte seq = 1; byte dop = O_NONE; short damt = 0;      /* the pool */
short wC = 0; short wG = 0; byte wph = TIGHT; byte wsq = 0; byte A = 0; byte R = 0;  /* the writer */
short bal = 0; byte inc = 1; bit live = 1; byte bsq = 0;                          /* the balance */
bit locked = 0;
byte lastinc = 1;
byte holder = 0;            /* 1 + newcomer that is live in the slot and not dead */
short held = 0;             /* its sessions */
bit dead[NACT];
byte kills = 0;
byte ps[NACT];              /* pool number remembered by an actor */
byte lx[NACT]; bit onb[NACT];   /* number of the pair about to be replaced; whether it is the balance's */
byte newbies = 0;

/* Numbers are only compared for equality, so they are renamed after each published operation (see engine.pml). */
inline RENAME(p) {
  xi = 0;
  do
  :: xi < NACT ->
     ps[xi] = (xi == p -> 1 : STALE);
     if
     :: onb[xi] -> lx[xi] = (lx[xi] == bsq -> 0 : STALE)
     :: else    -> lx[xi] = (lx[xi] == wsq -> 0 : STALE)
     fi;
     xi++
  :: else -> break
  od;
  xi = 0; seq = 1; wsq = 0; bsq = 0
}
#define PEND_W (HITS_W(dop) && wsq != seq)
#define PEND_B (HITS_B(dop) && bsq != seq)
#define SUM_W (wC + (PEND_W && (dop == O_ADJUST || dop == O_TAKEO) -> damt : 0) - (PEND_W && (dop == O_SETTLE || dop == O_FOLD) -> damt : 0))
#define SUM_B (bal + (PEND_B && (dop == O_FOLD || dop == O_BADJUST) -> damt : 0) - (PEND_B && dop == O_FREE -> bal : 0))

/* after each operation: nothing is lost or doubled, and nobody has taken the sessions of the living */
inline CHECK() {
  assert(free + SUM_W + SUM_B == CAP);
  assert(holder == 0 || SUM_W + SUM_B >= held);
  assert(free >= 0)
}

inline BEGIN(p) {
  d_step { pf = free; pl = loose; ps[p] = seq; pop = dop; pamt = damt };
  complete(p)
}
inline complete(p) {
  do
  :: !HITS_W(pop) -> break
  :: HITS_W(pop) ->
     atomic {
       d_step { if :: wsq == ps[p] || seq != ps[p] -> ok = 1 :: else -> lx[p] = wsq; onb[p] = 0; xph = wph; xc = wC fi };
       if :: ok -> ok = 0; break :: else fi };
     atomic {
       d_step {
         if
         :: wsq == lx[p] && wph == xph && wC == xc ->
            ok = 1;
            if
            :: pop == O_ADJUST -> wC = wC + pamt
            :: pop == O_TAKEO -> wC = wC + pamt; wG = wG + pamt - 1; wph = OPENED
            :: pop == O_SETTLE -> wC = wC - pamt; wG = wG - pamt; wph = TIGHT
            :: pop == O_FOLD -> wC = wC - pamt
            fi;
            wsq = ps[p]
         :: else
         fi;
         lx[p] = STALE; xph = 0; xc = 0 };
       if :: ok -> ok = 0; break :: else fi }
  od;
  do
  :: !HITS_B(pop) -> break
  :: HITS_B(pop) ->
     atomic {
       d_step { if :: bsq == ps[p] || seq != ps[p] -> ok = 1 :: else -> lx[p] = bsq; onb[p] = 1; xc = inc fi };
       if :: ok -> ok = 0; break :: else fi };
     atomic {
       d_step {
         if
         :: bsq == lx[p] && inc == xc ->
            ok = 1;
            if
            :: pop == O_FOLD || pop == O_BADJUST -> bal = bal + pamt
            :: pop == O_FREE -> bal = 0; live = 0
            :: pop == O_LIVE -> live = 1
            fi;
            bsq = ps[p]
         :: else
         fi;
         lx[p] = STALE; onb[p] = 0; xc = 0 };
       if :: ok -> ok = 0; break :: else fi }
  od;
  atomic { pop = O_NONE; pamt = 0 }
}
#define TXN(p,df,dl,o,am,DO) d_step { \
    if :: seq == ps[p] -> won = 1; xam = am; free = free + (df); loose = loose + (dl); RENAME(p); \
          dop = o; damt = xam; pop = o; pamt = xam; xam = 0; DO; CHECK() \
       :: else -> won = 0 fi }
#define FINISH(p) if :: won -> complete(p) :: else fi; atomic { won = 0; pf = 0; pl = 0; ps[p] = STALE; sp = 0; lph = 0; lr = 0; lg = 0 }

#ifdef MUT_NOINC
#define CURRENT(i) (live)
#else
#define CURRENT(i) (live && inc == (i))
#endif

/* what a reaper does who remembers incarnation `my` */
inline reap(p) {
  do
  :: !CURRENT(my) -> break
  :: else ->
     BEGIN(p);
     if
     :: !CURRENT(my) -> goto over
     :: else
     fi;
     atomic { lph = wph; lg = wG; sp = wC };
     if
     :: lph != TIGHT ->
        lr = R;
        atomic { sp = lg - (A - lr); if :: sp < 0 -> sp = 0 :: else fi;
          TXN(p, sp, -1, O_SETTLE, sp, skip) }
     :: lph == TIGHT && sp != 0 -> TXN(p, 0, 0, O_FOLD, sp, skip)
     :: lph == TIGHT && sp == 0 -> w = 1
     fi;
     FINISH(p);
     if :: w -> w = 0; break :: else fi
  od;
  do
  :: BEGIN(p);
     if
     :: !CURRENT(my) -> goto over
     :: else
     fi;
     sp = bal;
     TXN(p, sp, 0, O_FREE, 0, skip);
     FINISH(p)
  od;
over:
  atomic { my = 0; w = 0; won = 0; pf = 0; pl = 0; ps[p] = STALE; sp = 0; lph = 0; lr = 0; lg = 0 }
}
#define LOCALS short pf = 0; byte pl = 0; byte pop = 0; short pamt = 0; bit ok = 0; byte xph = 0; short xc = 0; bit won = 0; \
  short xam = 0; byte xi = 0; byte lph = 0; short lg = 0; byte lr = 0; short sp = 0; byte my = 0; bit w = 0;

proctype reaper(byte p) {
  LOCALS
  byte n = 0;
  do
  :: n < ROUNDS ->
     n++;
#ifdef MUT_INCLATE
     if
     :: !locked ->
        atomic { if :: live -> my = inc :: else fi }
     :: locked
     fi;
     if :: my != 0 -> reap(p) :: else fi
#else
     atomic { if :: live -> my = inc :: else fi };
     if
     :: my != 0 && !locked -> reap(p)
     :: else -> my = 0
     fi
#endif
  :: else -> break
  od
}

proctype newcomer(byte p) {
  LOCALS
  byte k = 0; byte w0 = 0; byte mine = 0; bit in = 0;
  {
  skip;
end:
  atomic { !locked && newbies == p - NREAP -> locked = 1; newbies++; lastinc++; mine = lastinc };
#ifndef MUT_NOREAP
  atomic { my = inc };
  reap(p);
#endif
  A = 0;
  R = 0;
  do
  :: d_step { lx[p] = wsq; onb[p] = 0; xph = wph; xc = wC };
     atomic { d_step { if :: wsq == lx[p] && wph == xph && wC == xc -> wG = 0; wph = TIGHT; wC = 0; ok = 1 :: else fi;
       lx[p] = STALE; xph = 0; xc = 0 };
       if :: ok -> ok = 0; break :: else fi }
  od;
  do
  :: d_step { lx[p] = bsq; onb[p] = 1; xc = inc };
     atomic { d_step { if :: bsq == lx[p] && inc == xc -> inc = mine; live = 0; bal = 0; ok = 1 :: else fi;
       lx[p] = STALE; onb[p] = 0; xc = 0 };
       if :: ok -> ok = 0; break :: else fi }
  od;
  do
  :: BEGIN(p);
     TXN(p, 0, 0, O_LIVE, 0, holder = 1+p; in = 1);
     FINISH(p);
     if :: in -> break :: else fi
  od;
  do
  :: k < K ->
     k++;
     if
     :: atomic { wph == OPENED && wG - (A - R) >= 1 -> w0 = wsq };       /* fast admit */
        A++;
        d_step { if :: wph == OPENED && wsq == w0 -> held++ :: else fi; w0 = 0 }
     :: atomic { wph == OPENED && held > 0 -> held-- };                  /* fast release */
        R++
     :: wph != OPENED ->
        BEGIN(p);
        if
        :: pf > 0 -> TXN(p, -1, 0, O_ADJUST, 1, held++)
        :: pf > 0 -> sp = pf; TXN(p, -sp, 1, O_TAKEO, sp, held++)
        :: held > 0 -> TXN(p, 1, 0, O_ADJUST, -1, held--)
        :: pf == 0 && held == 0 -> won = 0
        fi;
        FINISH(p)
     :: skip
     fi
  :: else -> break
  od
  } unless { dead[p] };
  skip;
  atomic { w0 = 0; k = 0; in = 0; mine = 0; my = 0; w = 0; won = 0; ok = 0; pf = 0; pl = 0; pop = 0; pamt = 0; xph = 0; xc = 0;
    ps[p] = STALE; lx[p] = STALE; onb[p] = 0; sp = 0; lph = 0; lr = 0; lg = 0 }
}

/* a holder of the lock dies: it does nothing more, and the lock is gone */
proctype killer() {
  byte n = 0;
end:
  do
  :: n < KILLS && locked -> atomic { n++; dead[NREAP+newbies-1] = 1; locked = 0; holder = 0; held = 0 }
  :: n < KILLS -> break
  od
}

/* nothing runs any more: one more look at the slot brings back all that the dead have left */
proctype finish() {
  LOCALS
  timeout;
  BEGIN(NACT-1);
  if
  :: live && !locked -> my = inc; reap(NACT-1)
  :: else
  fi;
  assert(dop == O_NONE || !PEND_W && !PEND_B);
  assert(loose == (wph != TIGHT));
  if
  :: live -> assert(locked && (wph == TIGHT -> wC : wC - (wG - (A - R))) + bal == held)
  :: else -> assert(free == CAP && loose == 0)
  fi
}

/* what the last holder has left: free, loose, the writer, and maybe an operation that nobody has applied */
#define LEFT(f,l,c,g,ph,a,r,b,o,am) \
  d_step { free = f; loose = l; wC = c; wG = g; wph = ph; A = a; R = r; bal = b; dop = o; damt = am }
init {
  byte i = 0;
  atomic {
    do :: i < NACT -> ps[i] = STALE; lx[i] = STALE; i++ :: else -> break od;
    i = 0;
    if
    :: LEFT(1, 0, 1, 0, TIGHT,  0, 0, 0, O_NONE, 0)
    :: LEFT(0, 1, 2, 2, OPENED, 1, 0, 0, O_NONE, 0)
    :: LEFT(0, 1, 2, 2, FROZEN, 1, 0, 0, O_NONE, 0)
    :: LEFT(1, 1, 1, 1, OPENED, 2, 0, 0, O_NONE, 0)      /* with a claim that nobody has decided on */
    :: LEFT(0, 1, 0, 0, TIGHT,  0, 0, 0, O_TAKEO, 2)
    :: LEFT(1, 0, 2, 2, FROZEN, 1, 0, 0, O_SETTLE, 1)
    :: LEFT(2, 0, 1, 0, TIGHT,  0, 0, 0, O_ADJUST, -1)
    :: LEFT(1, 0, 1, 0, TIGHT,  0, 0, 0, O_FOLD, 1)      /* by a reaper that has died */
    :: LEFT(1, 0, 0, 0, TIGHT,  0, 0, 0, O_BADJUST, 1)
    :: LEFT(2, 0, 0, 0, TIGHT,  0, 0, 1, O_BADJUST, -1)
    :: LEFT(2, 0, 0, 0, TIGHT,  0, 0, 1, O_FREE, 0)
    fi;
    CHECK();
    run finish(); run killer();
    do :: i < NREAP -> run reaper(i); i++ :: else -> break od;
    i = 0;
    do :: i < NNEW -> run newcomer(NREAP+i); i++ :: else -> break od;
    i = 0
  }
}
