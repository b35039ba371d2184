/* example.c - the C face from end to end, on a segment that nobody else uses and whose pool 0 has a cap:
 *
 *     cc -O2 -pthread example.c -o example $(pkg-config --cflags --libs fpxadmission)
 *     ./example /dev/shm/fpx/segment [threads]
 *
 * It exits with 0 if everything was as expected, else it says what was not. */
#include <fpxadmission.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { POOL = 0, ROUNDS = 20000, HELD = 8, THREADS_MAX = FPX_POOLS_MAX };

#define EXPECT(condition)                                                                                              \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: expected %s; last error: %s\n", __FILE__, __LINE__, #condition, fpx_last_error()); \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

static fpx_segment *segment;

/* An event loop has a lane of its own. Ask for a verdict when a session starts, give it back when the session ends. */
static void *event_loop(void *unused) {
    fpx_lane *lane;
    EXPECT(fpx_lane_open(segment, POOL, &lane) == FPX_OK);
    for (int round = 0; round < ROUNDS; round++) {
        fpx_verdict verdicts[HELD];
        for (int i = 0; i < HELD; i++) verdicts[i] = fpx_lane_admit(lane);
        for (int i = 0; i < HELD; i++) fpx_lane_release(lane, verdicts[i]);

        /* Code without a lane, on any thread, counts on the CPU that it runs on. */
        fpx_verdict verdict = fpx_pool_admit(segment, POOL);
        EXPECT(fpx_pool_release(segment, POOL, verdict) == FPX_OK);

        /* A session may start in one place and end in another. */
        fpx_lane_release(lane, fpx_pool_admit(segment, POOL));
    }
    EXPECT(fpx_lane_close(lane) == FPX_OK);
    return unused;
}

static int64_t in_use(void) {
    fpx_pool_stats stats;
    EXPECT(fpx_stats(segment, POOL, &stats) == FPX_OK);
    return stats.in_use;
}

/* The limit is exact: as many sessions as the cap, and not one more. */
static void fill_to_the_cap(const fpx_pool_stats *stats) {
    int64_t admitted = 0;
    fpx_verdict verdict;
    while ((verdict = fpx_pool_admit(segment, POOL)) == FPX_INSPECT) admitted++;
    EXPECT(admitted == stats->cap);
    EXPECT(verdict == stats->over_limit);
    EXPECT(fpx_pool_release(segment, POOL, verdict) == FPX_OK);
    EXPECT(in_use() == stats->cap);
    printf("the cap is exact: %lld sessions inspect, the next one %s\n", (long long)admitted,
           verdict == FPX_BYPASS ? "bypass" : "block");
    while (admitted-- > 0) EXPECT(fpx_pool_release(segment, POOL, FPX_INSPECT) == FPX_OK);
    EXPECT(in_use() == 0);
}

/* A handle is a session as a number: it can be stored in a connection's record, and its release is checked. */
static void use_handles(void) {
    fpx_session session;
    fpx_verdict verdict;
    EXPECT(fpx_admit(segment, POOL, &session, &verdict) == FPX_OK && verdict == FPX_INSPECT && session != 0);
    EXPECT(in_use() == 1);
    EXPECT(fpx_release(segment, session) == FPX_OK);
    EXPECT(fpx_release(segment, session) == FPX_E_HANDLE); /* a second release changes nothing */
    printf("a double release: %s\n", fpx_last_error());
    EXPECT(in_use() == 0);
}

/* A worker attaches after fork. What it holds when it dies comes back. */
static void fork_a_worker(const char *path) {
    pid_t child = fork();
    EXPECT(child >= 0);
    if (child == 0) {
        EXPECT(!fpx_is_attached(segment)); /* the parent's attachment is of no use here, and does no harm */
        EXPECT(fpx_pool_admit(segment, POOL) == FPX_BYPASS);
        EXPECT(fpx_report_bytes(segment, POOL, 1, 1) == FPX_E_DETACHED);
        EXPECT(fpx_attach(path, &segment) == FPX_OK);
        EXPECT(fpx_pool_admit(segment, POOL) == FPX_INSPECT);
        EXPECT(in_use() == 1);
        _exit(0); /* with a session in its hands, as if it had crashed */
    }
    int status;
    EXPECT(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    EXPECT(fpx_reap(segment) == FPX_OK); /* fpxd does it every 25 ms */
    EXPECT(in_use() == 0);
    puts("a worker died with a session in its hands: the session is back");
}

int main(int count, char **arguments) {
    int threads = count > 2 ? atoi(arguments[2]) : 2;
    if (count < 2 || threads < 1 || threads > THREADS_MAX) {
        fprintf(stderr, "usage: %s SEGMENT [THREADS, 1 to %d]\n", arguments[0], THREADS_MAX);
        return 2;
    }
    const char *path = arguments[1];

    EXPECT(fpx_attach("/dev/shm/there-is-no-such-segment", &segment) == FPX_E_SYSTEM && segment == NULL);
    printf("an error: %s\n", fpx_last_error());

    if (fpx_attach(path, &segment) != FPX_OK) {
        fprintf(stderr, "%s\n", fpx_last_error());
        return 1;
    }
    fpx_pool_stats stats;
    EXPECT(fpx_stats(segment, POOL, &stats) == FPX_OK);
    EXPECT(stats.cap > 0 && stats.in_use == 0);
    uint32_t processes = stats.processes; /* this one, and fpxd where it runs */

    pthread_t ids[THREADS_MAX];
    for (int i = 0; i < threads; i++) EXPECT(pthread_create(&ids[i], NULL, event_loop, NULL) == 0);
    for (int i = 0; i < threads; i++) EXPECT(pthread_join(ids[i], NULL) == 0);
    EXPECT(in_use() == 0);

    fill_to_the_cap(&stats);
    use_handles();
    fork_a_worker(path);
    EXPECT(fpx_report_bytes(segment, POOL, 1500, 64000) == FPX_OK); /* bandwidth metering: fpxd reads it */

    EXPECT(fpx_stats(segment, POOL, &stats) == FPX_OK);
    printf("cap %lld, in use %lld, bypassed %lld (peak %lld), refused %llu, processes %u\n", (long long)stats.cap,
           (long long)stats.in_use, (long long)stats.bypassed, (long long)stats.bypassed_peak,
           (unsigned long long)stats.refused, stats.processes);
    EXPECT(stats.in_use == 0 && stats.bypassed == 0 && stats.processes == processes);

    EXPECT(fpx_detach(segment) == FPX_OK);
    EXPECT(fpx_detach(segment) == FPX_E_DETACHED);
    puts("ok");
    return 0;
}
