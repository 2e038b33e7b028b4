/* Counts the calls that change files under one folder, and has the n-th go wrong.
 *
 * Loaded in front of libc (LD_PRELOAD) into a command and all its children. They share one counter,
 * in a file mapped by all, so that "the n-th call" is the n-th of the whole command, whichever
 * process makes it. Programs that enter the kernel without libc (W&B's core, in Go) are not seen.
 *
 * Environment, read when the library is loaded and again by fault_arm():
 *   FAULT_ROOT   the folder, without symlinks
 *   FAULT_STATE  a file of 8 bytes, the counter
 *   FAULT_LOG    where every call is written down: number, process, name,
 *                path, and what a rename took, tab-separated
 *   FAULT_AT     the call that goes wrong, from 1; 0 for none
 *   FAULT_KIND   KILL (this process), CUT (the whole process group), TORN (half of a write, then
 *                CUT), or an error: ENOSPC, EIO, EROFS
 *   FAULT_STAYS  if set, every later call fails too: a disk stays full
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind { KILL, CUT, TORN, ERROR };

static char root[PATH_MAX];
static size_t root_length;
static volatile long *counter;
static int log_file = -1, at, stays, error_number;
static enum kind kind;

/* syscall() instead of libc's names: these are the calls that are counted below. */
static int plain_open(const char *path, int flags) {
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags | O_CLOEXEC, 0644);
}

void fault_arm(void) {
    const char *folder = getenv("FAULT_ROOT"), *state = getenv("FAULT_STATE");
    const char *log = getenv("FAULT_LOG"), *what = getenv("FAULT_KIND");
    root_length = 0;
    if (!folder || !state) return;
    int handle = plain_open(state, O_RDWR);
    if (handle < 0) return;
    void *mapped = mmap(NULL, sizeof(long), PROT_READ | PROT_WRITE, MAP_SHARED, handle, 0);
    close(handle);
    if (mapped == MAP_FAILED) return;
    counter = mapped;
    log_file = log ? plain_open(log, O_WRONLY | O_CREAT | O_APPEND) : -1;
    at = atoi(getenv("FAULT_AT") ? getenv("FAULT_AT") : "0");
    stays = getenv("FAULT_STAYS") != NULL;
    kind = ERROR;
    error_number = EIO;
    if (what && !strcmp(what, "KILL")) kind = KILL;
    if (what && !strcmp(what, "CUT")) kind = CUT;
    if (what && !strcmp(what, "TORN")) kind = TORN;
    if (what && !strcmp(what, "ENOSPC")) error_number = ENOSPC;
    if (what && !strcmp(what, "EROFS")) error_number = EROFS;
    snprintf(root, sizeof root, "%s", folder);
    root_length = strlen(root);
}

__attribute__((constructor)) static void load(void) { fault_arm(); }

static void die(void) {
    if (kind == KILL)
        kill(getpid(), SIGKILL);
    else
        kill(0, SIGKILL);
    for (;;) pause();
}

/* Count a call on `path`; return whether it is to fail. */
static int fails(const char *name, const char *path, const char *from) {
    if (strncmp(path, root, root_length) || (path[root_length] && path[root_length] != '/'))
        return 0;
    long number = __atomic_add_fetch(counter, 1, __ATOMIC_SEQ_CST);
    if (log_file >= 0) {
        char line[2 * PATH_MAX + 80];
        int length = snprintf(line, sizeof line, "%ld\t%d\t%s\t%s\t%s\n", number, getpid(), name,
                              path, from);
        syscall(SYS_write, log_file, line, length);
    }
    return at && (number == at || (stays && number > at));
}

static void path_of(int handle, char *path) {
    char link[40];
    snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    path[length > 0 ? length : 0] = 0;
}

/* Write the absolute path of `name` in the folder `handle`; its last part may be a symlink. */
static void absolute(int handle, const char *name, char *path) {
    char joined[2 * PATH_MAX], folder[PATH_MAX] = "";
    if (name[0] != '/' && handle == AT_FDCWD && !getcwd(folder, sizeof folder)) folder[0] = 0;
    if (name[0] != '/' && handle != AT_FDCWD) path_of(handle, folder);
    snprintf(joined, sizeof joined, "%s%s%s", folder, name[0] == '/' ? "" : "/", name);
    char *slash = strrchr(joined, '/');
    while (slash > joined && !slash[1]) { /* mkdir("runs/") */
        *slash = 0;
        slash = strrchr(joined, '/');
    }
    *slash = 0;
    int found = realpath(joined[0] ? joined : "/", folder) != NULL;
    snprintf(path, PATH_MAX, "%.2000s/%.2000s", found ? folder : joined, slash + 1);
}

static int handle_fails(const char *name, int handle) {
    if (!root_length) return 0;
    int saved = errno;
    char path[PATH_MAX];
    path_of(handle, path);
    errno = saved;
    return fails(name, path, "");
}

static int pair_fails(const char *name, int handle, const char *file, int from_in,
                      const char *from) {
    if (!root_length || !file) return 0;
    int saved = errno;
    char path[PATH_MAX], old[PATH_MAX] = "";
    absolute(handle, file, path);
    if (from) absolute(from_in, from, old);
    errno = saved;
    return fails(name, path, old);
}

static int name_fails(const char *name, int handle, const char *file) {
    return pair_fails(name, handle, file, AT_FDCWD, NULL);
}

static int fail(void) {
    if (kind != ERROR) die();
    errno = error_number;
    return -1;
}

#define REAL(name)                             \
    static typeof(&name) real;                 \
    if (!real) real = dlsym(RTLD_NEXT, #name)

/* A write that is torn leaves its first half. */
#define WRITE(name, handle, half, whole)                      \
    if (handle_fails(name, handle)) {                         \
        if (kind == TORN && real(half) < 0) return -1;        \
        return fail();                                        \
    }                                                         \
    return real(whole)
#define ARGS(...) __VA_ARGS__

ssize_t write(int handle, const void *bytes, size_t count) {
    REAL(write);
    WRITE("write", handle, ARGS(handle, bytes, count / 2), ARGS(handle, bytes, count));
}
ssize_t pwrite(int handle, const void *bytes, size_t count, off_t where) {
    REAL(pwrite);
    WRITE("write", handle, ARGS(handle, bytes, count / 2, where), ARGS(handle, bytes, count, where));
}
ssize_t pwrite64(int handle, const void *bytes, size_t count, off64_t where) {
    REAL(pwrite64);
    WRITE("write", handle, ARGS(handle, bytes, count / 2, where), ARGS(handle, bytes, count, where));
}
ssize_t writev(int handle, const struct iovec *parts, int count) {
    REAL(writev);
    WRITE("write", handle, ARGS(handle, parts, count / 2), ARGS(handle, parts, count));
}

#define BY_HANDLE(name, called, parameters, arguments)  \
    int name parameters {                               \
        REAL(name);                                     \
        if (handle_fails(called, handle)) return fail(); \
        return real arguments;                          \
    }
BY_HANDLE(fsync, "fsync", (int handle), (handle))
BY_HANDLE(fdatasync, "fdatasync", (int handle), (handle))
BY_HANDLE(ftruncate, "ftruncate", (int handle, off_t length), (handle, length))
BY_HANDLE(ftruncate64, "ftruncate", (int handle, off64_t length), (handle, length))
BY_HANDLE(fchmod, "fchmod", (int handle, mode_t mode), (handle, mode))
ssize_t copy_file_range(int from, off64_t *from_at, int handle, off64_t *to_at, size_t length,
                        unsigned flags) {
    REAL(copy_file_range);
    if (handle_fails("write", handle)) return fail();
    return real(from, from_at, handle, to_at, length, flags);
}
ssize_t sendfile64(int handle, int from, off64_t *offset, size_t count) {
    static ssize_t (*real)(int, int, off64_t *, size_t);
    if (!real) real = dlsym(RTLD_NEXT, "sendfile64");
    if (handle_fails("write", handle)) return fail();
    return real(handle, from, offset, count);
}

#define BY_NAME(name, called, folder, file, parameters, arguments) \
    int name parameters {                                          \
        REAL(name);                                                \
        if (name_fails(called, folder, file)) return fail();       \
        return real arguments;                                     \
    }
BY_NAME(mkdir, "mkdir", AT_FDCWD, path, (const char *path, mode_t mode), (path, mode))
BY_NAME(mkdirat, "mkdir", in, path, (int in, const char *path, mode_t mode), (in, path, mode))
BY_NAME(rmdir, "rmdir", AT_FDCWD, path, (const char *path), (path))
BY_NAME(unlink, "unlink", AT_FDCWD, path, (const char *path), (path))
BY_NAME(unlinkat, flags & AT_REMOVEDIR ? "rmdir" : "unlink", in, path,
        (int in, const char *path, int flags), (in, path, flags))
BY_NAME(chmod, "chmod", AT_FDCWD, path, (const char *path, mode_t mode), (path, mode))
BY_NAME(fchmodat, "chmod", in, path, (int in, const char *path, mode_t mode, int flags),
        (in, path, mode, flags))
BY_NAME(truncate, "truncate", AT_FDCWD, path, (const char *path, off_t length), (path, length))
#define RENAME(name, from_in, to_in, parameters, arguments)                       \
    int name parameters {                                                         \
        REAL(name);                                                               \
        if (pair_fails("rename", to_in, to, from_in, from)) return fail();        \
        return real arguments;                                                    \
    }
RENAME(rename, AT_FDCWD, AT_FDCWD, (const char *from, const char *to), (from, to))
RENAME(renameat, old, new, (int old, const char *from, int new, const char *to),
       (old, from, new, to))
RENAME(renameat2, old, new, (int old, const char *from, int new, const char *to, unsigned flags),
       (old, from, new, to, flags))
BY_NAME(link, "link", AT_FDCWD, to, (const char *from, const char *to), (from, to))
BY_NAME(linkat, "link", to_in, to,
        (int from_in, const char *from, int to_in, const char *to, int flags),
        (from_in, from, to_in, to, flags))
BY_NAME(symlink, "symlink", AT_FDCWD, to, (const char *from, const char *to), (from, to))
BY_NAME(symlinkat, "symlink", in, to, (const char *from, int in, const char *to), (from, in, to))

static int writes(int flags) { return (flags & O_ACCMODE) != O_RDONLY || flags & (O_CREAT | O_TRUNC); }

#define OPEN(name, in, parameters, arguments)                            \
    int name parameters {                                                \
        REAL(name);                                                      \
        va_list rest;                                                    \
        va_start(rest, flags);                                           \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
        va_end(rest);                                                    \
        if (writes(flags) && name_fails("open", in, path)) return fail(); \
        return real arguments;                                           \
    }
OPEN(open, AT_FDCWD, (const char *path, int flags, ...), (path, flags, mode))
OPEN(open64, AT_FDCWD, (const char *path, int flags, ...), (path, flags, mode))
OPEN(openat, in, (int in, const char *path, int flags, ...), (in, path, flags, mode))
OPEN(openat64, in, (int in, const char *path, int flags, ...), (in, path, flags, mode))

#define FOPEN(name)                                                       \
    FILE *name(const char *path, const char *mode) {                      \
        REAL(name);                                                       \
        if ((mode[0] != 'r' || strchr(mode, '+')) && name_fails("open", AT_FDCWD, path)) { \
            fail();                                                       \
            return NULL;                                                  \
        }                                                                 \
        return real(path, mode);                                          \
    }
FOPEN(fopen)
FOPEN(fopen64)
