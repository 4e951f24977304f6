/* The yardstick: what a plain C loop over the same bytes costs. `yardstick CORE START END`: the file
   offsets of the heap, whose first chunk is at START. Counts the chunks by their sizes, then the
   words of the whole range that lie in it as numbers would; prints both times in CPU seconds. */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>

static double
now (void)
{
  return (double) clock () / CLOCKS_PER_SEC;
}

int
main (int argc, char **argv)
{
  if (argc != 4)
    return 2;
  int file = open (argv[1], O_RDONLY);
  struct stat about;
  if (file < 0 || fstat (file, &about) != 0)
    return 2;
  size_t start = strtoull (argv[2], NULL, 0), end = strtoull (argv[3], NULL, 0);
  const char *core = mmap (NULL, about.st_size, PROT_READ, MAP_PRIVATE, file, 0);
  if (core == MAP_FAILED || end > (size_t) about.st_size || start >= end)
    return 2;
  double before = now ();
  size_t chunks = 0, at = start;
  while (at + 16 <= end)
    {
      size_t size = *(const uint64_t *) (core + at + 8) & ~(uint64_t) 7;
      if (size < 16)
        break;
      chunks++;
      at += size;
    }
  double walked = now ();
  size_t inside = 0, low = 0x1000, high = low + (end - start);
  for (const uint64_t *word = (const uint64_t *) (core + start); (const char *) word < core + end; word++)
    inside += *word - low < high - low;
  printf ("{\"chunks\": %zu, \"walk_s\": %.3f, \"inside\": %zu, \"scan_s\": %.3f}\n", chunks,
          walked - before, inside, now () - walked);
  return 0;
}
