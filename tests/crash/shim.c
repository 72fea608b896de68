/* Loaded before libc into a process under test: numbers every call that changes a file below CRASH_ROOT or speaks to the
 * network, and strikes one of them. Nothing happens while CRASH_ROOT is not set, so a fork server may carry it.
 *
 *   CRASH_ROOT    directory whose files count
 *   CRASH_AT      number of the call that is struck (1 is the first); 0 or unset: none
 *   CRASH_HOW     before | after: SIGKILL then; short: half of a write; ENOSPC | EDQUOT | EIO | EROFS | EFBIG: that error,
 *                 with a + behind it: on this call and every later one that can fail so; clock:N: nothing fails, but from
 *                 this call on the clock on the wall is N seconds off
 *   CRASH_LOG     file that gets a line a call: number, name, path or "socket", bytes; the struck one is marked with !
 *   CRASH_SHADOW  directory that gets, by inode, what would survive a power cut: the content of a file at its last fsync,
 *                 the entries of a directory at its last fsync
 *   CRASH_CLOCK   seconds that the clock on the wall is off from the first call on; the monotonic clock is never touched
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { CREATES = 1, WRITES = 2, SYNCS = 4, NAMES = 8, NETWORK = 16 };

static char root[PATH_MAX], shadow[PATH_MAX], how[32];
static long at;
static int log_fd = -1, started, error_number, sticky, error_kinds;
static atomic_long calls, clock_off;
static long clock_step;

static int begun(void) {
    if (started) return 1;
    const char *given = getenv("CRASH_ROOT");
    if (!given) return 0;
    started = 1;
    snprintf(root, sizeof root, "%s", given);
    if ((given = getenv("CRASH_SHADOW"))) snprintf(shadow, sizeof shadow, "%s", given);
    if ((given = getenv("CRASH_AT"))) at = atol(given);
    if ((given = getenv("CRASH_HOW"))) snprintf(how, sizeof how, "%s", given);
    size_t length = strlen(how);
    if (length && how[length - 1] == '+') { sticky = 1; how[length - 1] = 0; }
    if (!strcmp(how, "ENOSPC")) { error_number = ENOSPC; error_kinds = CREATES | WRITES | SYNCS | NAMES; }
    if (!strcmp(how, "EDQUOT")) { error_number = EDQUOT; error_kinds = CREATES | WRITES | SYNCS | NAMES; }
    if (!strcmp(how, "EIO")) { error_number = EIO; error_kinds = CREATES | WRITES | SYNCS | NAMES; }
    if (!strcmp(how, "EROFS")) { error_number = EROFS; error_kinds = CREATES | WRITES | NAMES; }
    if (!strcmp(how, "EFBIG")) { error_number = EFBIG; error_kinds = WRITES; }
    if (!strncmp(how, "clock:", 6)) clock_step = atol(how + 6);
    if ((given = getenv("CRASH_CLOCK"))) clock_off = atol(given);
    if ((given = getenv("CRASH_LOG")))
        log_fd = syscall(SYS_openat, AT_FDCWD, given, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    return 1;
}

static int below(const char *path) {
    size_t length = strlen(root);
    return !strncmp(path, root, length) && (path[length] == '/' || !path[length]);
}

/* The absolute path of `path` relative to `dir`; 0 when it does not count. */
static int named(int dir, const char *path, char *out) {
    if (!path) return 0;
    if (path[0] == '/') { snprintf(out, PATH_MAX, "%s", path); return below(out); }
    char base[PATH_MAX], link[64];
    ssize_t length;
    if (dir == AT_FDCWD) { if (!getcwd(base, sizeof base)) return 0; }
    else {
        snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
        if ((length = readlink(link, base, sizeof base - 1)) < 0) return 0;
        base[length] = 0;
    }
    snprintf(out, PATH_MAX, "%.2000s/%.2000s", base, path);
    return below(out);
}

static int opened(int fd, char *out) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, out, PATH_MAX - 1);
    if (length < 0) return 0;
    out[length] = 0;
    return below(out);
}

static int is_network(int fd) {
    int domain = 0;
    socklen_t size = sizeof domain;
    return !getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) && (domain == AF_INET || domain == AF_INET6);
}

static void die(void) { syscall(SYS_kill, getpid(), SIGKILL); for (;;) pause(); }

/* Number a call. 0: go on. -1: it fails with errno set. 1: die after it. 2: do half of it. */
static int strike(const char *name, int kind, const char *path, long bytes) {
    long number = atomic_fetch_add(&calls, 1) + 1;
    int hit = at && (number == at || (sticky && number > at));
    if (hit && error_number) hit = (kind & error_kinds) != 0;
    else if (hit && !strcmp(how, "short")) hit = kind == WRITES && bytes > 1;
    if (log_fd >= 0) {
        char line[PATH_MAX + 100];
        int length = snprintf(line, sizeof line, "%ld%s %s %ld %s\n", number, hit ? "!" : "", name, bytes, path);
        syscall(SYS_write, log_fd, line, length);
    }
    if (!hit) return 0;
    if (clock_step) { atomic_fetch_add(&clock_off, clock_step); return 0; }
    if (error_number) { errno = error_number; return -1; }
    if (!strcmp(how, "short")) return 2;
    if (!strcmp(how, "before")) die();
    return 1;
}

static void after(int what) { if (what == 1) die(); }

/* Keep an inode that loses its name, so that no later file gets its number. */
static void pin(int dir, const char *path) {
    if (shadow[0]) syscall(SYS_openat, dir, path, O_PATH | O_NOFOLLOW | O_CLOEXEC, 0);
}

static void remember(int fd) {
    struct stat facts;
    char place[PATH_MAX + 64], link[64];
    if (!shadow[0] || fstat(fd, &facts)) return;
    snprintf(place, sizeof place, "%s/%c%lu", shadow, S_ISDIR(facts.st_mode) ? 'd' : 'f', (unsigned long)facts.st_ino);
    int out = syscall(SYS_openat, AT_FDCWD, place, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    if (S_ISDIR(facts.st_mode)) {
        DIR *directory = opendir(link);
        struct dirent *entry;
        while (directory && (entry = readdir(directory)))
            if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
                dprintf(out, "%c%lu %s\n", entry->d_type == DT_DIR ? 'd' : 'f', (unsigned long)entry->d_ino, entry->d_name);
        if (directory) closedir(directory);
    } else {
        int in = syscall(SYS_openat, AT_FDCWD, link, O_RDONLY | O_CLOEXEC, 0);
        char block[65536];
        long length;
        while ((length = syscall(SYS_read, in, block, sizeof block)) > 0) syscall(SYS_write, out, block, length);
        syscall(SYS_close, in);
    }
    syscall(SYS_close, out);
}

#define WRITABLE (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC)

static int open_any(int dir, const char *path, int flags, mode_t mode) {
    char full[PATH_MAX];
    int what = 0;
    if ((flags & WRITABLE) && begun() && named(dir, path, full)) {
        what = strike("open", CREATES, full, 0);
        if (what < 0) return -1;
    }
    int fd = syscall(SYS_openat, dir, path, flags, mode);
    int kept = errno;
    after(what);
    errno = kept;
    return fd;
}

#define MODE mode_t mode = 0; if (flags & (O_CREAT | O_TMPFILE)) { va_list more; va_start(more, flags); mode = va_arg(more, int); va_end(more); }
int open(const char *path, int flags, ...) { MODE return open_any(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE return open_any(AT_FDCWD, path, flags, mode); }
int openat(int dir, const char *path, int flags, ...) { MODE return open_any(dir, path, flags, mode); }
int openat64(int dir, const char *path, int flags, ...) { MODE return open_any(dir, path, flags, mode); }

/* Calls on a descriptor: REALLY is the true call, HALF what is left of it when it is cut short. */
#define ON_FILE(name, kind, bytes, REALLY, HALF)                     \
    char full[PATH_MAX];                                             \
    int what = 0;                                                    \
    if (begun() && opened(fd, full)) {                               \
        what = strike(name, kind, full, (long)(bytes));              \
        if (what < 0) return -1;                                     \
        if (what == 2) return HALF;                                  \
    }                                                                \
    long result = REALLY;                                            \
    int kept = errno;                                                \
    after(what);                                                     \
    errno = kept;                                                    \
    return result

ssize_t write(int fd, const void *from, size_t count) {
    ON_FILE("write", WRITES, count, syscall(SYS_write, fd, from, count), syscall(SYS_write, fd, from, count / 2));
}
ssize_t writev(int fd, const struct iovec *parts, int count) {
    ON_FILE("writev", WRITES, 0, syscall(SYS_writev, fd, parts, count), -1);
}
ssize_t pwrite(int fd, const void *from, size_t count, off_t place) {
    ON_FILE("pwrite", WRITES, count, syscall(SYS_pwrite64, fd, from, count, place),
            syscall(SYS_pwrite64, fd, from, count / 2, place));
}
ssize_t pwrite64(int fd, const void *from, size_t count, off64_t place) { return pwrite(fd, from, count, place); }
int ftruncate(int fd, off_t size) { ON_FILE("ftruncate", WRITES, 0, syscall(SYS_ftruncate, fd, size), -1); }
int ftruncate64(int fd, off64_t size) { return ftruncate(fd, size); }

static int sync_any(const char *name, int fd, int number) {
    char full[PATH_MAX];
    int what = 0, counts = begun() && opened(fd, full);
    if (counts && (what = strike(name, SYNCS, full, 0)) < 0) return -1;
    if (counts && shadow[0]) remember(fd); /* the disk itself need not be waited for: the shadow is what survives */
    int result = counts ? 0 : syscall(number, fd), kept = errno;
    after(what);
    errno = kept;
    return result;
}
int fsync(int fd) { return sync_any("fsync", fd, SYS_fsync); }
int fdatasync(int fd) { return sync_any("fdatasync", fd, SYS_fdatasync); }

/* Calls on names. */
#define ON_NAME(name, dir, path, PIN, REALLY)                        \
    char full[PATH_MAX];                                             \
    int what = 0;                                                    \
    if (begun() && named(dir, path, full)) {                         \
        what = strike(name, NAMES, full, 0);                         \
        if (what < 0) return -1;                                     \
        PIN;                                                         \
    }                                                                \
    int result = REALLY, kept = errno;                               \
    after(what);                                                     \
    errno = kept;                                                    \
    return result

int renameat(int from_dir, const char *from, int to_dir, const char *to) {
    ON_NAME("rename", to_dir, to, pin(to_dir, to), syscall(SYS_renameat, from_dir, from, to_dir, to));
}
int rename(const char *from, const char *to) { return renameat(AT_FDCWD, from, AT_FDCWD, to); }
int unlinkat(int dir, const char *path, int flags) {
    ON_NAME("unlink", dir, path, pin(dir, path), syscall(SYS_unlinkat, dir, path, flags));
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }
int mkdirat(int dir, const char *path, mode_t mode) {
    ON_NAME("mkdir", dir, path, (void)0, syscall(SYS_mkdirat, dir, path, mode));
}
int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }
int linkat(int from_dir, const char *from, int to_dir, const char *to, int flags) {
    ON_NAME("link", to_dir, to, (void)0, syscall(SYS_linkat, from_dir, from, to_dir, to, flags));
}
int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }

/* The clock on the wall, as the program and its libraries read it. */
int clock_gettime(clockid_t which, struct timespec *now) {
    int result = syscall(SYS_clock_gettime, which, now);
    if (!result && (which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE) && begun()) now->tv_sec += clock_off;
    return result;
}
int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec exact;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &exact)) return -1;
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}
time_t time(time_t *into) {
    struct timespec now;
    if (clock_gettime(CLOCK_REALTIME, &now)) return -1;
    if (into) *into = now.tv_sec;
    return now.tv_sec;
}

/* The network. */
#define ON_SOCKET(name, bytes, REALLY)                               \
    int what = begun() && is_network(fd) ? strike(name, NETWORK, "socket", (long)(bytes)) : 0; \
    long result = REALLY;                                            \
    int kept = errno;                                                \
    after(what);                                                     \
    errno = kept;                                                    \
    return result

int connect(int fd, const struct sockaddr *to, socklen_t size) {
    ON_SOCKET("connect", 0, syscall(SYS_connect, fd, to, size));
}
ssize_t sendto(int fd, const void *from, size_t count, int flags, const struct sockaddr *to, socklen_t size) {
    ON_SOCKET("send", count, syscall(SYS_sendto, fd, from, count, flags, to, size));
}
ssize_t send(int fd, const void *from, size_t count, int flags) { return sendto(fd, from, count, flags, NULL, 0); }
ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
    ON_SOCKET("sendmsg", 0, syscall(SYS_sendmsg, fd, message, flags));
}
