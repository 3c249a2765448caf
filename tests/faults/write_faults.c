/* Fails writes to chosen files with EIO; preloaded into the services by test_io_errors.py.
 *
 * Where the file named by WRITE_FAULTS is there, it holds a part of the paths that no write gets to. It is looked at on
 * every call, so a test changes its mind without a restart. (libfiu fails all writes of a process, to pipes too.)
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int is_to_fail(int descriptor)
{
    char link[64], path[PATH_MAX] = "", part[PATH_MAX] = "";
    const char *asked = getenv("WRITE_FAULTS");
    int file = asked == NULL ? -1 : open(asked, O_RDONLY | O_CLOEXEC);
    ssize_t length;

    if (file < 0)
        return 0;
    length = read(file, part, sizeof part - 1);
    close(file);
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    return length > 0 && readlink(link, path, sizeof path - 1) > 0 && strstr(path, part) != NULL;
}

ssize_t write(int descriptor, const void *data, size_t size)
{
    ssize_t (*real)(int, const void *, size_t) = (ssize_t (*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
    int before = errno;

    if (is_to_fail(descriptor)) {
        errno = EIO;
        return -1;
    }
    errno = before;
    return real(descriptor, data, size);
}
