/* What the tests of the gdb door look at: a list, an array, a struct, blocks with a purpose. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct node
{
  struct node *next;
  char name[40];
};

struct node *first;
char *blocks[4];
int called;
volatile int waits;

int
touch (void)
{
  return ++called;
}

__attribute__ ((noinline)) void
ready (int number)
{
  __asm__ volatile ("" : : "r"(number));
}

static void *
worker (void *finished)
{
  free (malloc (100));
  pthread_barrier_wait (finished);
  pthread_barrier_wait (finished);
  return NULL;
}

int
main (void)
{
  pthread_t thread;
  pthread_barrier_t finished;

  for (int i = 0; i < 3; i++)
    {
      struct node *node = calloc (1, sizeof *node);
      node->next = first;
      first = node;
    }
  for (int i = 0; i < 4; i++)
    blocks[i] = memset (malloc (2000), 'a' + i, 2000);
  free (blocks[1]);
  struct node *volatile held = first->next;
  pthread_barrier_init (&finished, NULL, 2);
  pthread_create (&thread, NULL, worker, &finished);
  pthread_barrier_wait (&finished);
  ready (7);
  while (waits)
    ;
  pthread_barrier_wait (&finished);
  return pthread_join (thread, NULL) + (held == NULL);
}
