/* One seat, lent by its owner to one of NB borrowers (docs/SHARING.md has the rules by letter). Every row that was ever written may be
 * read never, late, twice or out of order. Clocks run apart by at most DRIFT ticks; a borrower may stop at any time while its clock
 * goes on (it simply does nothing); owner and borrower may crash and start again.
 *
 *   -DNB=n      borrowers (default 1)           -DN=n       rows that each process of a borrower writes (default 3)
 *   -DTERM=n    what a loan lasts, in ticks     -DM=n       the borrower's margin      -DTMAX=n  ticks of real time
 *   -DDRIFT=n   how far clocks run apart        -DCRASHA=n  borrower's crashes         -DCRASHB=n owner's
 *   -DACK       the policy ack-only: nothing ends by time, and borrowers' clocks may stop
 *   -DSTOPS     a borrower's clock may stop while it does nothing: what only ack-only survives
 *   -DMUT_RECEIPT     the borrower counts from the grant's arrival
 *   -DMUT_NOLEARN     a restarted owner uses all at once
 *   -DMUT_GRANTFIRST  the owner grants, then stops using
 *   -DMUT_RETURNFIRST the borrower gives back, then stops using
 *   -DMUT_OLDGRANT    the borrower takes a grant that its promise excludes
 *   -DMUT_OLDRETURN   the owner honours a promise that does not cover its last grant
 *   -DMUT_ANYINC      the borrower takes what was granted to the process before it
 *   -DMUT_UNRECORDED  the owner renews without counting anew
 *   -DMUT_FORGET      with ACK: the owner forgets in a crash what is lent
 *
 * The seat is used by the owner while nothing is lent, and by a borrower before its deadline: at most one at every instant.      */

#ifndef NB
#define NB 1
#endif
#ifndef N
#define N 3
#endif
#ifndef TERM
#define TERM 3
#endif
#ifndef M
#define M 1
#endif
#ifndef DRIFT
#define DRIFT 1
#endif
#ifndef TMAX
#define TMAX 9
#endif
#ifndef CRASHA
#define CRASHA 0
#endif
#ifndef CRASHB
#define CRASHB 0
#endif
#define NEVER 255
#define W (N+1)
#define ROW(b,i,n) (((b)*(CRASHA+1)+(i))*W+(n))
#define ROWS (NB*(CRASHA+1)*W)

byte t, drift, cB;                        /* real time, accumulated error, the owner's clock */
byte cA[NB], asked[ROWS];                 /* the borrower's clock, now and before each row was sent */
byte inc[NB], issued[NB];                 /* its process, and that one's rows */
byte dl[NB], num[NB], thr[NB];            /* deadline, number adopted, and the promise: takes none up to here */
bit row[ROWS], grant[ROWS];               /* what lies in etcd, or is on its way */
byte promise[ROWS];                       /* in a row: nothing is used of grants up to this number */
byte until[NB], last[NB], linc[NB];       /* the owner's loans */
byte learn, crashesA, crashesB;
bit halfB[NB], halfA[NB];                 /* a mutant between its two steps */

#define USESA(b) (cA[b] < dl[b])
#define OUT(b)   (cB < until[b] && !halfB[b])
#if NB == 1
#define USESB    (!OUT(0) && cB >= learn)
#define ALL      (USESA(0) + USESB)
#define OTHERS(b) (cB >= learn)
#else
#define USESB    (!OUT(0) && !OUT(1) && cB >= learn)
#define ALL      (USESA(0) + USESA(1) + USESB)
#define OTHERS(b) (cB >= until[1-(b)] && cB >= learn)
#endif
#define CHECK    assert(ALL <= 1)

#ifdef ACK
#define GRANTED  NEVER
#define DEADLINE NEVER
#else
#define GRANTED  (cB + TERM)
#ifdef MUT_RECEIPT
#define DEADLINE (cA[b] + TERM - M)
#else
#define DEADLINE (asked[ROW(b,inc[b],n)] + TERM - M)
#endif
#endif

#ifdef MUT_ANYINC
#define TAKES(b,n) (grant[ROW(b,inc[b],n)] || (inc[b] > 0 && grant[ROW(b,0,n)] && n <= issued[b]))
#else
#define TAKES(b,n) grant[ROW(b,inc[b],n)]
#endif
#ifdef MUT_OLDGRANT
#define FRESH(b,n) (n > num[b])
#else
#define FRESH(b,n) (n > num[b] && n > thr[b])
#endif
#ifdef MUT_OLDRETURN
#define COVERS(b,i,n) (promise[ROW(b,i,n)] > 0)
#else
#define COVERS(b,i,n) (promise[ROW(b,i,n)] > 0 && promise[ROW(b,i,n)] >= last[b])
#endif

proctype Time() {
    do
    :: atomic { t < TMAX ->
        t++; cB++;
#ifdef STOPS
        if :: cA[0]++ :: skip fi;
#else
        cA[0]++;
#endif
#if NB > 1
        cA[1]++;
#endif
        if
        :: drift < DRIFT -> drift++; if :: cB++ :: cA[0]-- fi
        :: skip
        fi;
        CHECK }
    :: else -> break
    od
}

proctype Borrower(byte b) {
    byte n;
end:
    do
    :: atomic { issued[b] < N && !halfA[b] ->       /* B1: the clock first, then the row */
        issued[b]++;
        asked[ROW(b,inc[b],issued[b])] = cA[b];
        if
        :: dl[b] > 0 && cA[b] >= dl[b] -> dl[b] = 0; if :: num[b] > thr[b] -> thr[b] = num[b] :: else fi
        :: else
        fi;
        if :: dl[b] == 0 -> promise[ROW(b,inc[b],issued[b])] = thr[b] :: else fi;
        row[ROW(b,inc[b],issued[b])] = 1 }
    :: atomic {                                     /* B2: takes a grant to this process, newer than any and than its promise */
        n = 1;
        do :: n < N -> n++ :: break od;
        if
        :: TAKES(b,n) && FRESH(b,n) && !halfA[b] -> num[b] = n; dl[b] = DEADLINE
        :: else
        fi;
        n = 0; CHECK }
#ifdef MUT_RETURNFIRST
    :: atomic { dl[b] > 0 && issued[b] < N && !halfA[b] ->
        thr[b] = issued[b]; issued[b]++; halfA[b] = 1;
        asked[ROW(b,inc[b],issued[b])] = cA[b]; promise[ROW(b,inc[b],issued[b])] = thr[b]; row[ROW(b,inc[b],issued[b])] = 1 }
    :: atomic { halfA[b] -> halfA[b] = 0; dl[b] = 0; CHECK }
#else
    :: atomic { dl[b] > 0 -> dl[b] = 0; thr[b] = issued[b] }        /* R1: stops; the next row says so */
#endif
    :: atomic { crashesA < CRASHA -> crashesA++; inc[b]++; issued[b] = 0; dl[b] = 0; num[b] = 0; thr[b] = 0; halfA[b] = 0 }
    od
}

proctype Owner() {
    byte b, i, n;
end:
    do
    :: atomic {                                     /* reads any row */
        b = 0; i = 0; n = 1;
        do
        :: b < NB-1 -> b++
        :: i < CRASHA -> i++
        :: n < N -> n++
        :: break
        od;
        if :: row[ROW(b,i,n)] :: else -> b = 0; i = 0; n = 0 fi };
       if
       :: n == 0 -> skip
#ifdef MUT_GRANTFIRST
       :: atomic { n > 0 && cB >= until[b] && OTHERS(b) && USESB ->
            grant[ROW(b,i,n)] = 1; until[b] = GRANTED; last[b] = n; linc[b] = i; halfB[b] = 1; CHECK };
          atomic { halfB[b] = 0 }
#else
       :: atomic { n > 0 && cB >= until[b] && OTHERS(b) ->          /* L1: stops, and counts the time, then grants */
            until[b] = GRANTED; last[b] = n; linc[b] = i; grant[ROW(b,i,n)] = 1; CHECK }
#endif
       :: atomic { n > last[b] && i == linc[b] && cB < until[b] && cB >= learn ->       /* renews */
#ifndef MUT_UNRECORDED
            until[b] = GRANTED;
#endif
            last[b] = n; grant[ROW(b,i,n)] = 1; CHECK }
       :: atomic { n > 0 && i == linc[b] && cB < until[b] && COVERS(b,i,n) -> until[b] = 0; CHECK }
#ifdef ACK
       :: atomic { n > 0 && i > linc[b] -> until[b] = 0; CHECK }    /* the process that borrowed is gone */
#endif
       :: skip
       fi;
       atomic { b = 0; i = 0; n = 0 }
    :: atomic { crashesB < CRASHB ->
        crashesB++;
#if defined(ACK) && !defined(MUT_FORGET)
        skip                                        /* its own row in etcd says what is lent */
#else
        until[0] = 0; last[0] = 0; linc[0] = 0;
#if NB > 1
        until[1] = 0; last[1] = 0; linc[1] = 0;
#endif
#if !defined(MUT_NOLEARN) && !defined(ACK)
        learn = cB + TERM;                          /* C1 */
#endif
#endif
        CHECK }
    od
}

init { atomic { run Time(); run Borrower(0);
#if NB > 1
    run Borrower(1);
#endif
    run Owner() } }
