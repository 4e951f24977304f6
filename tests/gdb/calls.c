/* Calls to record, and faults to stop at, as the first letter of its word says. */

#include <stdlib.h>

char *p, *q;

void
here (void)
{
}

int
main (int count, char **words)
{
  char what = count > 1 ? words[1][0] : ' ';
  p = malloc (40);
  q = malloc (100);
  here ();
  if (what == 'w')
    p[40] = 'x';
  q = realloc (q, 3000);
  free (q);
  if (what == 'd')
    free (q);
  if (what == 'n')
    free (p + 16);
  q = malloc (777);
  here ();
  return q == NULL;
}
