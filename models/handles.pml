/* A session with a handle: an entry of its process' table, which any process may release, once.
 *
 * The entry is in use, then free (released by its own process), or first releasing (released by another one): one operation
 * of the pool takes the session off the balance of its process and frees the entry. The owner or a releaser may be killed at
 * any step. Calls race: LOCAL releases by threads of the owner, FOREIGN ones by threads of another process; all may mean the
 * same session.
 *
 *   -DLOCALS=n  local releases (default 1)     -DFOREIGNS=n  foreign releases (default 2)
 *   -DAGAIN     the owner takes the entry again for a second session, when it is free
 *   -DSECOND    the last foreign release means the second session
 *   -DBYSTANDER a thread that does what is pending, once, and nothing else
 *   -DNODEATH   nobody is killed
 *   -DMUT_NOGEN      the generation is not compared
 *   -DMUT_SPLIT      the entry is freed first, then the session is taken off the balance
 *   -DMUT_NOLOOK     who publishes the operation does not look at the entry again after it has loaded the pool
 *   -DMUT_NOBEGIN    who releases does not first do what is pending
 *   -DMUT_NOBALANCE  who frees the entry does not see whether the operation is done
 *   -DMUT_LATEFINISH a dead process' slot is given back before what it has begun for others is finished
 *
 * The owner's sessions are counted in its balance alone (what a writer does is in engine.pml). The owner's death returns all
 * it holds in one transaction; what comes before that is in slots.pml.                                               */

#ifndef LOCALS
#define LOCALS 1
#endif
#ifndef FOREIGNS
#define FOREIGNS 2
#endif
#ifdef AGAIN
#define CAP 2
#else
#define CAP 1
#endif
#define NCALL (LOCALS+FOREIGNS)
#define OWNER NCALL
#define NEWCOMER (NCALL+1)
#define REAPER (NCALL+2)
#define HELPER (NCALL+3)
#define IDLER (NCALL+4)
#define NACT (NCALL+5)
#define STALE 255

#define E_FREE 0
#define E_INUSE 1
#define E_RELEASING 2

#define O_NONE 0
#define O_ADJUST 1         /* the balance */
#define O_RELEASE 2        /* the entry, then the balance */
#define O_FREE 3           /* the balance */

short free = 0; byte seq = 1; byte dop = O_NONE; short damt = 0;      /* the pool */
short bal = CAP; bit live = 1; byte bsq = 0;                          /* the owner's balance */
byte est = E_INUSE; byte gen = 1;                                     /* the entry; its first session is in progress */
bit ownerdead = 0; bit otherdead = 0; bit otherlive = 1;   /* the other process' slot is live */
byte killed = 0;           /* 1 + the newcomer, when it is killed */
byte ended[3];             /* successful releases of session 1, 2 */
byte sessions = CAP;       /* sessions of the owner that have not ended: one has no handle when AGAIN */
byte ps[NACT]; byte lx[NACT];
byte done = 0;

inline RENAME(p) {
  xi = 0;
  do
  :: xi < NACT -> ps[xi] = (xi == p -> 1 : STALE); lx[xi] = (lx[xi] == bsq -> 0 : STALE); xi++
  :: else -> break
  od;
  xi = 0; seq = 1; bsq = 0
}
inline BEGIN(p) {
  d_step { pf = free; ps[p] = seq; pop = dop; pamt = damt };
  complete(p)
}
#ifdef MUT_NOBALANCE
#define OVER(p) (seq != ps[p])
#else
#define OVER(p) (bsq == ps[p] || seq != ps[p])
#endif
inline complete(p) {
  if
  :: pop == O_RELEASE ->
     do
     :: atomic {
          d_step { eg = gen; es = est; if :: es != E_RELEASING || OVER(p) -> ok = 1 :: else fi };
          if :: ok -> ok = 0; break :: else fi };
        atomic {
          d_step { if :: gen == eg && est == es -> est = E_FREE; ok = 1 :: else fi };
          if :: ok -> ok = 0; break :: else fi }
     od;
     atomic { eg = 0; es = 0 }
  :: else
  fi;
  do
  :: pop == O_NONE -> break
  :: pop != O_NONE ->
     atomic {
       d_step { if :: bsq == ps[p] || seq != ps[p] -> ok = 1 :: else -> lx[p] = bsq fi };
       if :: ok -> ok = 0; break :: else fi };
     atomic {
       d_step {
         if
         :: bsq == lx[p] ->
            ok = 1;
            if
            :: pop == O_ADJUST -> bal = bal + pamt
            :: pop == O_RELEASE -> bal--
            :: pop == O_FREE -> bal = 0; live = 0
            fi;
            bsq = ps[p]
         :: else
         fi;
         lx[p] = STALE };
       if :: ok -> ok = 0; break :: else fi }
  od;
  atomic { pop = O_NONE; pamt = 0 }
}
#define TXN(p,df,o,am,DO) d_step { \
    if :: seq == ps[p] -> won = 1; xam = am; free = free + (df); RENAME(p); \
          dop = o; damt = xam; pop = o; pamt = xam; xam = 0; DO; CHECK() \
       :: else -> won = 0 fi }
#define FINISH(p) if :: won -> complete(p) :: else fi; atomic { won = 0; pf = 0; ps[p] = STALE }

#define PEND (dop != O_NONE && bsq != seq)
inline CHECK() {
  assert(free + bal + (PEND && dop == O_ADJUST -> damt : 0) - (PEND && dop == O_RELEASE -> 1 : 0) - (PEND && dop == O_FREE -> bal : 0) == CAP);
  /* what the owner still holds has its credit: no session was given back twice */
  assert(ownerdead || bal + (PEND && dop == O_ADJUST -> damt : 0) - (PEND && dop == O_RELEASE -> 1 : 0) >= sessions)
}
#define LOCALVARS short pf = 0; byte pop = 0; short pamt = 0; bit ok = 0; bit won = 0; short xam = 0; byte xi = 0; byte eg = 0; byte es = 0; bit w = 0;
#ifdef MUT_NOGEN
#define NAMED(g) (est == E_INUSE)
#else
#define NAMED(g) (est == E_INUSE && gen == g)
#endif

/* the session of a releasing entry off its process' balance */
inline releaseForeign(p) {
  do
  :: BEGIN(p);
#ifndef MUT_NOLOOK
     atomic { d_step { eg = gen; es = est };
       if :: es != E_RELEASING -> eg = 0; es = 0; break :: else fi };
#else
     d_step { eg = gen; es = est };
#endif
     if
     :: !live ->
        atomic {
          d_step { if :: gen == eg && est == es -> est = E_FREE; ok = 1 :: else fi; eg = 0; es = 0 };
          if :: ok -> ok = 0; break :: else fi }
     :: live ->
        TXN(p, 1, O_RELEASE, 0, skip);
        atomic { eg = 0; es = 0; w = won };
        FINISH(p);
        if :: w -> w = 0; break :: else fi
     fi
  od;
  atomic { won = 0; pf = 0; ps[p] = STALE }
}

/* a release by a thread of the owner */
proctype releaseOwn(byte p) {
  LOCALVARS
  bit mine = 0;
  {
  d_step { if :: NAMED(1) -> est = E_FREE; mine = 1; ended[gen]++; sessions-- :: else fi };
  do
  :: mine -> BEGIN(p);
     TXN(p, 1, O_ADJUST, -1, mine = 0);
     FINISH(p)
  :: !mine -> break
  od
  } unless { ownerdead };
  skip; done++
}

/* a release of session g by another process, which has its handle once there is such a session */
proctype releaseOther(byte p; byte g) {
  LOCALVARS
  bit mine = 0;
  {
  if
  :: gen < g -> goto over
  :: else
  fi;
#ifndef MUT_NOBEGIN
  BEGIN(p);
  atomic { pf = 0; ps[p] = STALE };
#endif
#ifdef MUT_SPLIT
  d_step { if :: NAMED(g) -> est = E_FREE; mine = 1; ended[gen]++; sessions-- :: else fi };
  do
  :: mine -> BEGIN(p);
     if
     :: live -> TXN(p, 1, O_ADJUST, -1, mine = 0)
     :: else -> mine = 0
     fi;
     FINISH(p)
  :: !mine -> break
  od
#else
  d_step { if :: NAMED(g) -> est = E_RELEASING; mine = 1; ended[gen]++; sessions-- :: else fi };
  if
  :: mine -> releaseForeign(p)
  :: else
  fi
#endif
  } unless { otherdead };
over:
  skip; done++
}

#ifdef BYSTANDER
proctype bystander(byte p) {
  LOCALVARS
  BEGIN(p);
  atomic { pf = 0; ps[p] = STALE }
}
#endif

#ifdef AGAIN
/* the owner takes the entry for its second session */
proctype owner(byte p) {
  {
  skip;
end:
  do
  :: atomic { est == E_FREE -> est = E_INUSE; gen++; break }
  od
  } unless { ownerdead }
}
#endif

/* Who finds the other process dead: a reaper, or a newcomer that has taken its slot. The slot stays live, so that everybody
 * sees that something is to be done, until what its threads have begun for others is finished. */
inline recover(p) {
#ifndef MUT_LATEFINISH
  if
  :: est == E_RELEASING -> releaseForeign(p)
  :: else
  fi;
#endif
  otherlive = 0
}
proctype reaper(byte p) {
  LOCALVARS
  {
  skip;
end:
  do
  :: ownerdead && live ->
     BEGIN(p);
     if
     :: live -> TXN(p, bal, O_FREE, 0, skip)
     :: else
     fi;
     FINISH(p)
  :: otherdead && otherlive ->
     recover(p);
#ifdef MUT_LATEFINISH
     if
     :: est == E_RELEASING -> releaseForeign(p)
     :: else
     fi
#endif
  od
  } unless { killed == 1+p };
  skip
}
proctype newcomer(byte p) {
  LOCALVARS
  {
  skip;
end:
  otherdead && otherlive -> recover(p)
  } unless { killed == 1+p };
  skip
}

proctype killer() {
  if
  :: ownerdead = 1
  :: otherdead = 1;
     if :: killed = 1+NEWCOMER :: skip fi
  :: skip
  fi
}

proctype finish() {
  LOCALVARS
  timeout;
  BEGIN(HELPER);
  assert(ended[1] <= 1 && ended[2] <= 1);
  assert(done == NCALL);
  if
  :: ownerdead -> assert(!live && free == CAP)
  :: else -> assert(est != E_RELEASING && bal == sessions && free == CAP - sessions)
  fi
}

init {
  byte i = 0;
  atomic {
    do :: i < NACT -> ps[i] = STALE; lx[i] = STALE; i++ :: else -> break od;
    i = 0;
    run finish();
#ifndef NODEATH
    run killer(); run reaper(REAPER); run newcomer(NEWCOMER);
#endif
#ifdef AGAIN
    run owner(OWNER);
#endif
    do :: i < LOCALS -> run releaseOwn(i); i++ :: else -> break od;
#ifdef BYSTANDER
    run bystander(IDLER);
#endif
#ifdef SECOND
    run releaseOther(NCALL-1, 2);
    do :: i < NCALL-1 -> run releaseOther(i, 1); i++ :: else -> break od;
#else
    do :: i < NCALL -> run releaseOther(i, 1); i++ :: else -> break od;
#endif
    i = 0
  }
}
