/* A disk that fails below one folder: preloaded (LD_PRELOAD) into a process, it lets the n-th change of a file there fail as the system would.

   cc -shared -fPIC -O1 -o failing_disk.so failing_disk.c -ldl

   Changes: to open a file for writing, write, fsync, rename, mkdir, ftruncate. Python, torch, pyarrow, safetensors and SQLite all come by here. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static char below[PATH_MAX] = "";
static int number = 0, lasting = 0;
static long at = 0, seen = 0, failed = 0;

/* Changes below FOLDER are counted from now on. The AT-th one fails with errno NUMBER, and with LASTING all that follow; AT 0: none does. */
void disk_fails(const char *folder, int with, long when, int last) {
    strncpy(below, folder, PATH_MAX - 1);
    number = with, at = when, lasting = last, seen = failed = 0;
}
long disk_changes(void) { return seen; }
long disk_failures(void) { return failed; }

static int inside(const char *path) {
    size_t length = strlen(below);
    return length && path && strncmp(path, below, length) == 0;
}

static int inside_at(int folder, const char *path) {
    char link[64], where[PATH_MAX];
    if (!below[0] || !path) return 0;
    if (path[0] == '/') return inside(path);
    if (folder == AT_FDCWD) return getcwd(where, PATH_MAX) && inside(where);
    snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
    ssize_t length = readlink(link, where, PATH_MAX - 1);
    if (length < 0) return 0;
    where[length] = 0;
    return inside(where);
}

static int inside_file(int file) {
    int before = errno, found = below[0] && file > 2 && inside_at(file, ".");
    errno = before;
    return found;
}

static int fails(void) {
    seen++;
    if (!at || seen < at || (!lasting && seen > at)) return 0;
    failed++;
    errno = number;
    return 1;
}

#define REAL(name) static __typeof__(&name) real = NULL; if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
#define WRITES(flags) (((flags) & O_ACCMODE) != O_RDONLY || ((flags) & O_CREAT))

#define OPEN(name) int name(const char *path, int flags, ...) { \
    REAL(name); va_list rest; va_start(rest, flags); mode_t mode = (flags & (O_CREAT | __O_TMPFILE)) ? va_arg(rest, mode_t) : 0; va_end(rest); \
    if (WRITES(flags) && inside_at(AT_FDCWD, path) && fails()) return -1; \
    return real(path, flags, mode); }
OPEN(open)
OPEN(open64)
#define OPENAT(name) int name(int folder, const char *path, int flags, ...) { \
    REAL(name); va_list rest; va_start(rest, flags); mode_t mode = (flags & (O_CREAT | __O_TMPFILE)) ? va_arg(rest, mode_t) : 0; va_end(rest); \
    if (WRITES(flags) && inside_at(folder, path) && fails()) return -1; \
    return real(folder, path, flags, mode); }
OPENAT(openat)
OPENAT(openat64)

/* As a disk does that fills up: what still fits is written, and the next write fails. */
#define HALF(count) (number == ENOSPC && lasting && seen == at && (count) > 1 ? (failed--, at++, (count) / 2) : 0)
ssize_t write(int file, const void *from, size_t count) {
    REAL(write);
    if (inside_file(file) && fails()) { size_t half = HALF(count); return half ? real(file, from, half) : -1; }
    return real(file, from, count);
}
#define PWRITE(name, offset_type) ssize_t name(int file, const void *from, size_t count, offset_type place) { \
    REAL(name); if (inside_file(file) && fails()) { size_t half = HALF(count); return half ? real(file, from, half, place) : -1; } \
    return real(file, from, count, place); }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)
ssize_t writev(int file, const struct iovec *parts, int count) { REAL(writev); if (inside_file(file) && fails()) return -1; return real(file, parts, count); }
ssize_t copy_file_range(int from, off64_t *a, int to, off64_t *b, size_t count, unsigned flags) {
    REAL(copy_file_range); if (inside_file(to) && fails()) return -1; return real(from, a, to, b, count, flags); }
ssize_t sendfile(int to, int from, off_t *place, size_t count) {
    static ssize_t (*real)(int, int, off_t *, size_t) = NULL; if (!real) real = dlsym(RTLD_NEXT, "sendfile");
    if (inside_file(to) && fails()) return -1;
    return real(to, from, place, count); }
int fsync(int file) { REAL(fsync); if (inside_file(file) && fails()) return -1; return real(file); }
int fdatasync(int file) { REAL(fdatasync); if (inside_file(file) && fails()) return -1; return real(file); }
int ftruncate(int file, off_t size) { REAL(ftruncate); if (inside_file(file) && fails()) return -1; return real(file, size); }
int ftruncate64(int file, off64_t size) { REAL(ftruncate64); if (inside_file(file) && fails()) return -1; return real(file, size); }
int rename(const char *from, const char *to) { REAL(rename); if (inside_at(AT_FDCWD, to) && fails()) return -1; return real(from, to); }
int renameat(int a, const char *from, int b, const char *to) { REAL(renameat); if (inside_at(b, to) && fails()) return -1; return real(a, from, b, to); }
int mkdir(const char *path, mode_t mode) { REAL(mkdir); if (inside_at(AT_FDCWD, path) && fails()) return -1; return real(path, mode); }
int mkdirat(int folder, const char *path, mode_t mode) { REAL(mkdirat); if (inside_at(folder, path) && fails()) return -1; return real(folder, path, mode); }
