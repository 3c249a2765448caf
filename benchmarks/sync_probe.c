/* Counts and delays what waits for a disk; preloaded into the services by benchmarks/throughput.py.
 *
 * The file <SYNC_PROBE>/delay_us holds how long each sync takes longer, <SYNC_PROBE>/<pid> is grown by a byte for each:
 * its length is the count. Both are looked at on every call, so a benchmark changes its mind without a restart.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void probed(void)
{
    char path[PATH_MAX], text[32] = "";
    const char *folder = getenv("SYNC_PROBE");
    int file;

    if (folder == NULL)
        return;
    snprintf(path, sizeof path, "%s/%d", folder, (int)getpid());
    file = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (file >= 0) {
        if (write(file, ".", 1) != 1)
            abort();
        close(file);
    }
    snprintf(path, sizeof path, "%s/delay_us", folder);
    file = open(path, O_RDONLY | O_CLOEXEC);
    if (file >= 0) {
        if (read(file, text, sizeof text - 1) > 0)
            usleep((useconds_t)atoi(text));
        close(file);
    }
}

#define PROBED(name)                                                            \
    int name(int descriptor)                                                    \
    {                                                                           \
        int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, #name);               \
        probed();                                                               \
        return real(descriptor);                                                \
    }

PROBED(fsync)
PROBED(fdatasync)
