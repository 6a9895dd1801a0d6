/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Replays files, or all files of directories, through a fuzz target, so that every target is also a normal
 * test. Replaying nothing is a failure.
 */
#include "tests/check.h"

#include <dirent.h>
#include <stdint.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t replay_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    struct stat status;
    CHECK(file != NULL && fstat(fileno(file), &status) == 0);
    size_t size = (size_t)status.st_size;
    /* exactly as large as the content, so that the address sanitizer sees one byte too far */
    uint8_t *data = malloc(size > 0 ? size : 1);
    CHECK(data != NULL && fread(data, 1, size, file) == size);
    (void)fclose(file);
    (void)LLVMFuzzerTestOneInput(data, size);
    free(data);
    return 1;
}

static size_t replay(const char *path)
{
    DIR *dir = opendir(path);
    if (dir == NULL) {
        return replay_file(path);
    }
    size_t n_files = 0;
    struct dirent *entry;
    while ((entry = readdir(dir)) != NULL) {
        char name[4096];
        int len = snprintf(name, sizeof(name), "%s/%s", path, entry->d_name);
        CHECK(len > 0 && (size_t)len < sizeof(name));
        n_files += entry->d_name[0] == '.' ? 0 : replay_file(name);
    }
    (void)closedir(dir);
    return n_files;
}

int main(int argc, char **argv)
{
    size_t n_files = 0;
    for (int i = 1; i < argc; i++) {
        n_files += replay(argv[i]);
    }
    (void)printf("%zu inputs replayed\n", n_files);
    return n_files > 0 ? 0 : 1;
}
