/* A heap of a million chunks of mixed sizes, every third one freed, then a stop for the debugger. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BLOCKS = 1000000 };
static void *blocks[BLOCKS];

__attribute__ ((noinline)) void
heap_ready (void)
{
  __asm__ volatile ("");
}

int
main (void)
{
  unsigned long seed = 1;
  for (long i = 0; i < BLOCKS; i++)
    {
      seed = seed * 6364136223846793005ul + 1442695040888963407ul;
      size_t size = i % 1000 == 0 ? 5000 + i % 7 * 16 : 8 + (seed >> 33) % 120;
      blocks[i] = malloc (size);
      memset (blocks[i], (int) i, size < 16 ? size : 16);
    }
  for (long i = 0; i < BLOCKS; i += 3)
    free (blocks[i]);
  heap_ready ();
  pause ();
  return 0;
}
