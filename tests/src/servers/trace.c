/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Loaded into a storage server (LD_PRELOAD): writes down when it changes a file, and
 * keeps it from doing so while a test wants a request to be stuck in execution.
 *
 * HOLDFAST_TRACE names a directory:
 *   ops       one line per change: EVENT PID OPERATION OFFSET LEN HEAD FILE, with EVENT
 *             `enter` before it and `done` after it; HEAD is the first eight bytes, hex.
 *   hold-PID  while this file is there, process PID waits between `enter` and the change.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char *directory(void)
{
    return getenv("HOLDFAST_TRACE");
}

static void note(const char *event, const char *operation, int fd, uint64_t offset, uint64_t len, uint64_t head)
{
    char link[64], file[PATH_MAX], name[PATH_MAX], line[PATH_MAX + 128];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t got = readlink(link, file, sizeof file - 1);
    file[got < 0 ? 0 : got] = 0;
    int size = snprintf(line, sizeof line, "%s %d %s %llu %llu %016llx %s\n", event, (int)getpid(), operation,
                        (unsigned long long)offset, (unsigned long long)len, (unsigned long long)head, file);
    snprintf(name, sizeof name, "%s/ops", directory());
    int log = open(name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    /* Not write(): a line must not be taken for a change. One call, so lines stay whole. */
    if (log < 0 || dprintf(log, "%s", line) != size)
        abort();
    close(log);
}

static void wait_until_let_loose(void)
{
    char name[PATH_MAX];
    snprintf(name, sizeof name, "%s/hold-%d", directory(), (int)getpid());
    while (access(name, F_OK) == 0) {
        struct timespec step = {0, 2 * 1000 * 1000};
        nanosleep(&step, NULL);
    }
}

static uint64_t head_of(const void *buffer, size_t len)
{
    uint64_t head = 0;
    for (size_t i = 0; i < 8 && i < len; i++)
        head = head << 8 | ((const unsigned char *)buffer)[i];
    return head;
}

ssize_t pwrite64(int fd, const void *buffer, size_t len, off64_t offset)
{
    static ssize_t (*real)(int, const void *, size_t, off64_t);
    if (!real)
        real = dlsym(RTLD_NEXT, "pwrite64");
    uint64_t head = head_of(buffer, len);
    note("enter", "write", fd, offset, len, head);
    wait_until_let_loose();
    ssize_t done = real(fd, buffer, len, offset);
    note("done", "write", fd, offset, len, head);
    return done;
}

int fallocate64(int fd, int mode, off64_t offset, off64_t len)
{
    static int (*real)(int, int, off64_t, off64_t);
    if (!real)
        real = dlsym(RTLD_NEXT, "fallocate64");
    note("enter", "zero", fd, offset, len, 0);
    wait_until_let_loose();
    int done = real(fd, mode, offset, len);
    note("done", "zero", fd, offset, len, 0);
    return done;
}
