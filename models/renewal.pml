/* A licence that one unit renews, and its copy beside it (rule K3 of docs/decisions/0014). Each question has a name, under
 * which the authority gives its first answer again. Questions and answers may be lost, late and doubled; a unit may crash between
 * any two of its writes, and asks again: the open question under its name, or after an hour another one. A question says when it
 * was sent: one that was sent before another that is decided is late, and gets no answer. The authority's part is one transaction,
 * so its crash is a lost question or a lost answer.
 *
 *   -DNU=n       1: the unit alone; 2 (default): at any moment its disk is copied, and the copy starts
 *   -DKEYS=n     questions in all (default 5)     -DCRASHES=n  of units (default 2)
 *   -DMUT_LAST   the authority takes the epoch that it gave last, and no other
 *   -DMUT_HELD   the authority takes the epoch that was held last, and no other
 *   -DMUT_RANGE  the authority takes every epoch that it has given since the one that was held
 *   -DMUT_ANY    the authority takes every epoch
 *   -DMUT_NOKEY  the authority decides anew when a question comes again
 *   -DMUT_NOTIME the authority decides a question however late it comes
 *   -DMUT_LATE   the unit takes the answer to an earlier question
 *   -DMUT_SOON   the unit goes on with a lease before it is on its disk
 *
 * A unit without a copy is always renewed. Of two, once each was renewed twice, one at most is renewed any more.             */

#ifndef NU
#define NU 2
#endif
#ifndef KEYS
#define KEYS 5
#endif
#ifndef CRASHES
#define CRASHES 2
#endif
#define NONE   255
#define CLONED 255
#define IDLE   0
#define WAITS  1
#define STORED 2             /* the licence is in place */
#define KNOWN  3             /* and its epoch in the record */

byte held = 0, given = 1;    /* the authority's row */
byte keys = 0;               /* questions that were asked ... */
byte said[KEYS];             /* ... with the epoch that each says */
byte answer[KEYS];           /* 0: not decided yet */
byte at[KEYS];               /* its place among all in the order in which they were sent last, from 1 on ... */
byte late = 0;               /* ... and up to which place they are late */

byte file[NU], rec[NU];      /* on the disk: the licence's epoch, and the record's */
byte open[NU];               /* on the disk: the question without an answer */
byte mem[NU];                /* of a mutant: not on the disk yet */
byte step[NU];
bit gone[NU];                /* it was told that it is a copy, or has one */
byte renewed[NU];            /* since there are two */
bit more[NU];
bit two = 0;
byte crashes = 0;
byte i, k;

#define MAX(a,b) ((a) > (b) -> (a) : (b))
#define HOLDS(u) MAX(mem[u], MAX(file[u], rec[u]))

inline start(u) {
  mem[u] = 0; step[u] = IDLE;
  rec[u] = MAX(rec[u], file[u]);
  if
  :: open[u] != NONE && HOLDS(u) > said[open[u]] -> open[u] = NONE
  :: else
  fi
}

#ifdef MUT_NOKEY
#define DECIDED(q) (given == 2 * KEYS)
#else
#define DECIDED(q) (answer[q] != 0)
#endif
#ifdef MUT_NOTIME
#define LATE(q) 0
#else
#define LATE(q) (at[q] <= late)
#endif

inline decide(q) {
  if
  :: DECIDED(q) || LATE(q)
  :: else ->
     late = MAX(late, at[q] - 1);
     if
#if defined(MUT_LAST)
     :: said[q] == given ->
#elif defined(MUT_HELD)
     :: said[q] == held ->
#elif defined(MUT_RANGE)
     :: said[q] >= held && said[q] <= given ->
#elif defined(MUT_ANY)
     :: true ->
#else
     :: said[q] == held || said[q] == given ->
#endif
        held = said[q]; given++; answer[q] = given
     :: else -> answer[q] = CLONED
     fi
  fi
}

inline send(q) {
  late = (at[q] != 0 && at[q] <= late -> late - 1 : late);
  k = 0;
  do
  :: k < KEYS -> at[k] = (at[q] != 0 && at[k] > at[q] -> at[k] - 1 : at[k]); k++
  :: else -> break
  od;
  k = 0;
  at[q] = keys
}

inline ask(u) {
  if
  :: open[u] != NONE && said[open[u]] == HOLDS(u)
  :: keys < KEYS -> said[keys] = HOLDS(u); open[u] = keys; keys++
  fi;
  send(open[u]);
  step[u] = WAITS
}

inline take(u, q) {
  if
  :: answer[q] == CLONED -> assert(two); gone[u] = 1; open[u] = NONE; step[u] = IDLE
  :: else ->
     if
     :: two ->
        if
        :: renewed[0] >= 2 && renewed[NU-1] >= 2 -> more[u] = 1
        :: else
        fi;
        assert(!(more[0] && more[NU-1]));
        renewed[u] = (renewed[u] < 2 -> renewed[u] + 1 : 2)
     :: else
     fi;
#ifdef MUT_SOON
     mem[u] = answer[q]; open[u] = NONE; step[u] = IDLE
#else
     file[u] = answer[q]; step[u] = STORED
#endif
  fi
}

#define CAN_ASK(u) (step[u] == IDLE && !gone[u] && (keys < KEYS || (open[u] != NONE && said[open[u]] == HOLDS(u))))

active proctype world() {
  d_step {
    i = 0;
    do
    :: i < NU -> file[i] = 1; rec[i] = 1; open[i] = NONE; i++
    :: else -> break
    od;
    i = 0
  }
end:
  do
  :: atomic { keys > 0 -> k = 0; do :: k + 1 < keys -> k++ :: break od; decide(k); k = 0 }
  :: atomic { NU == 2 && !two ->
       two = 1; file[NU-1] = file[0]; rec[NU-1] = rec[0]; open[NU-1] = open[0]; start(NU-1) }
  :: atomic { (NU == 1 || !two -> 1 : 0) -> i = 0; goto one }
  :: atomic { two -> if :: i = 0 :: i = NU - 1 fi; goto one }
  od;
one:
  atomic {
    if
    :: CAN_ASK(i) -> ask(i)
    :: step[i] == WAITS && answer[open[i]] != 0 -> take(i, open[i])
#ifdef MUT_LATE
    :: step[i] == WAITS && open[i] > 0 && answer[open[i]-1] != 0 -> take(i, (open[i]-1))
#endif
    :: step[i] == WAITS -> step[i] = IDLE                     /* nothing came */
    :: step[i] == STORED -> rec[i] = MAX(rec[i], file[i]); step[i] = KNOWN
    :: step[i] == KNOWN -> open[i] = NONE; step[i] = IDLE
#ifdef MUT_SOON
    :: mem[i] > file[i] -> file[i] = mem[i]; rec[i] = MAX(rec[i], file[i])
#endif
    :: crashes < CRASHES -> crashes++; start(i)
    :: else
    fi;
    i = 0;
    goto end
  }
}
