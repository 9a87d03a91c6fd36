/* A disk that fails when it is told to: laid under a program by LD_PRELOAD.
 *
 * The file named by HOLDLINE_FAULTS says how, at any moment: "write" (writing fails), "sync" (syncing
 * fails), "full" (there is no room), "half" (half is written, then there is no room). Anything else, or
 * no such file: all is well. Only files of the spool and of the journal are concerned. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static char fault_of(int fd) {
    static ssize_t (*real_read)(int, void *, size_t);
    if (!real_read) real_read = dlsym(RTLD_NEXT, "read");
    const char *file = getenv("HOLDLINE_FAULTS");
    if (!file) return 0;
    int faults = open(file, O_RDONLY | O_CLOEXEC);
    if (faults < 0) return 0;
    char text[2] = {0, 0};
    ssize_t length = real_read(faults, text, 2);
    close(faults);
    if (length < 1) return 0;
    char link[64], path[1024];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t end = readlink(link, path, sizeof path - 1);
    if (end < 0) return 0;
    path[end] = 0;
    return strstr(path, "spool.sqlite") || strstr(path, "/journal/") ? text[0] : 0;
}

static ssize_t deny(int error) {
    errno = error;
    return -1;
}

#define WRITES(name, offset_type)                                                                \
    ssize_t name(int fd, const void *bytes, size_t length, offset_type offset) {                 \
        static ssize_t (*real)(int, const void *, size_t, offset_type);                          \
        if (!real) real = dlsym(RTLD_NEXT, #name);                                               \
        switch (fault_of(fd)) {                                                                  \
        case 'w': return deny(EIO);                                                              \
        case 'f': return deny(ENOSPC);                                                           \
        case 'h': return length > 1 ? real(fd, bytes, length / 2, offset) : deny(ENOSPC);        \
        default: return real(fd, bytes, length, offset);                                         \
        }                                                                                        \
    }

ssize_t write(int fd, const void *bytes, size_t length) {
    static ssize_t (*real)(int, const void *, size_t);
    if (!real) real = dlsym(RTLD_NEXT, "write");
    switch (fault_of(fd)) {
    case 'w': return deny(EIO);
    case 'f': return deny(ENOSPC);
    case 'h': return length > 1 ? real(fd, bytes, length / 2) : deny(ENOSPC);
    default: return real(fd, bytes, length);
    }
}

WRITES(pwrite, off_t)
WRITES(pwrite64, off64_t)

#define SYNCS(name)                                                                              \
    int name(int fd) {                                                                           \
        static int (*real)(int);                                                                 \
        if (!real) real = dlsym(RTLD_NEXT, #name);                                               \
        return fault_of(fd) == 's' ? (int)deny(EIO) : real(fd);                                  \
    }

SYNCS(fsync)
SYNCS(fdatasync)
