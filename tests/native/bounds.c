/* Calls every function of heapglass.c with what the bytes of an input say, each buffer in a block of
   just its size, so that AddressSanitizer sees any step outside. Built with libFuzzer, or by itself:

     bounds COUNT SEED    so many inputs of a pseudo-random generator, half of them shaped like heaps */

#include "../../src/heapglass/native/heapglass.c"

#include <stdio.h>
#include <stdlib.h>

static const u8 *input;
static size_t left;

static u64
take (u64 below)
{
  u64 value = 0;
  for (int i = 0; i < 2 && left; i++, left--)
    value = value << 8 | *input++;
  return below ? value % below : value;
}

/* A block of just this size; the bytes are the input's, then zeros. */
static void *
block (size_t size)
{
  u8 *made = calloc (size ? size : 1, 1);
  if (!made)
    abort ();
  if (!size)
    return realloc (made, 1);
  return made;
}

static u8 *
bytes (size_t size)
{
  u8 *made = block (size);
  size_t some = size < left ? size : left;
  memcpy (made, input, some);
  input += some;
  left -= some;
  return made;
}

static void
check (int holds, const char *what)
{
  if (!holds)
    {
      fprintf (stderr, "not so: %s\n", what);
      abort ();
    }
}

struct machine
{
  int word, swap;
  u64 alignment, least;
};

static void
few_rows (const struct span *span, const struct machine *m)
{
  u64 start = span->base + (take (2) ? take (span->length + 64) - 16 : 0);
  u64 end = span->base + span->length + take (64), stretch = take (2) ? take (64) : take (0);
  u64 room = 4 + take (6), *addresses = block (8 * room), *sizes = block (8 * room);
  u64 marked = take (4), *marks = block (8 * marked), calls = 0;
  for (u64 i = 0; i < marked; i++)
    marks[i] = (i ? marks[i - 1] : span->base) + take (256);
  struct seen seen = { .at = start, .until = start };
  while (!seen.done)
    {
      u64 kept = hg_landmarks (span, end, m->word, m->swap, m->alignment, m->least, marks, marked,
                               stretch, &seen, addresses, sizes, room);
      check (kept <= room, "a walk by landmarks keeps to its room");
      check (calls++ <= span->length, "a walk by landmarks ends");
    }
  free (marks);
  free (addresses);
  free (sizes);
}

static void
walks (const struct span *span, const struct machine *m)
{
  u64 word = m->word, from = span->base + take (span->length + 64) - 16;
  u64 end = from + take (0), room = take (64), stop = 0;
  u64 *addresses = block (8 * room), *sizes = block (8 * room);
  u64 count = hg_walk (span, from, end, m->word, m->swap, m->alignment, m->least, addresses, sizes,
                       room, &stop);
  check (count <= room, "a walk keeps to its room");
  hg_walk (span, from, end, m->word, m->swap, m->alignment, m->least, NULL, NULL, room, &stop);

  u64 to = from + take (4096) / m->alignment * m->alignment;
  u8 *failed = block ((to - from) / m->alignment / 8 + 1);
  u64 found = hg_find_chain (span, from, to, from + take (0), to + take (0), m->word, m->swap,
                             m->alignment, m->least, take (8), 1 + take (8), failed);
  check (found >= from && found <= to, "a chain begins where it was looked for");
  free (failed);

  u64 bin = span->base + take (span->length + 1), before = bin;
  u64 link = span->base + take (span->length + 64) / m->alignment * m->alignment;
  for (u64 at = link - span->base, n = 0; n < 8 && at + 4 * word <= span->length; n++)
    { /* links that lead on: to the next chunk but one, say */
      u64 next = link + (at + 64 < span->length ? 64 : 0), fields[2] = { next, before };
      for (int i = 0; i < 2; i++)
        {
          u64 field = m->swap ? __builtin_bswap64 (fields[i]) : fields[i];
          memcpy ((u8 *) span->data + at + (2 + i) * word,
                  (u8 *) &field + (m->swap ? 8 - word : 0), word);
        }
      before = link, link = next, at = link - span->base;
    }
  before = bin;
  link = span->base + take (span->length + 64) / m->alignment * m->alignment;
  room = take (64);
  u64 *chunks = block (8 * room);
  check (hg_ring (span, bin, &before, &link, m->word, m->swap, m->alignment, take (64), take (0),
                  chunks, room) <= room, "a ring keeps to its room");
  free (chunks);

  u64 *places = block (8 * room), next = 0, low = take (0);
  check (hg_words_in (span, take (span->length + 2), low, low + take (0), ~(u64) 0, m->word, m->swap,
                      places, room, &next) <= room, "words keep to their room");
  check (next < span->length + 2 * word + 2, "words end near the end");
  struct hidden hidden = { low, low + take (0), take (0), take (70), 0, take (2) * take (0) };
  check (hg_hidden_words (span, take (span->length + 2), &hidden, m->word, m->swap, places, room, &next)
         <= room, "hidden words keep to their room");
  free (places);
  free (addresses);
  free (sizes);
}

static void
columns (const u64 *sizes, u8 *states, u64 count)
{
  u64 room = take (16);
  u64 *rows = block (8 * room);
  hg_flags (sizes, states, count, rows, room);
  free (rows);

  room = (u64) 1 << take (8);
  u64 *of_size = block (8 * room), *values = block (8 * room);
  u8 *of_state = block (room);
  memset (of_state, 255, room);
  if (hg_pairs (sizes, states, count, of_size, of_state, values, room))
    {
      u64 groups = 1 + take (4), first = take (0), total = 0;
      u64 *ends = block (8 * groups), *begins = block (8 * groups);
      for (u64 group = 0; group < groups; group++)
        {
          begins[group] = total;
          ends[group] = total += take (16);
        }
      for (u64 slot = 0; slot < room; slot++)
        values[slot] %= groups;
      rows = block (8 * total);
      hg_select (sizes, states, first, count, of_size, of_state, values, room, begins, ends, rows);
      for (u64 group = 0; group < groups; group++)
        check (begins[group] <= ends[group], "a group keeps to its room");
      free (rows);
      free (ends);
      free (begins);
    }
  free (of_size);
  free (of_state);
  free (values);
}

/* What the blocks of a graph are. */
static void
kinds (const struct heap *heap, const struct span *root, u64 rows, const struct machine *m)
{
  struct kinds all = { block (rows), block (8 * rows), m->alignment, m->least, 4096, 8 * rows };
  hg_held_by_root (heap, &all, root);
  hg_held_by_blocks (heap, &all);
  u64 low = heap->low + take (64), ranges[] = { low, low + take (64), low + 128, low + 256 };
  hg_by_words (heap, &all, ranges, 2);
  u64 count = take (4), *keys = block (8 * count);
  for (u64 i = 0; i < count; i++)
    keys[i] = (i ? keys[i - 1] : heap->low) + take (32);
  hg_by_key (heap, &all, take (8) * m->word, keys, count);
  hg_by_contents (heap, &all);
  u64 room = (u64) 1 << take (7), from = 0;
  struct tally tally = { block (8 * room), block (8 * room), block (8 * room), block (8 * room),
                         block (room), block (room), room, 0 };
  int whole = hg_tally (heap, &all, &tally, &from);
  check (whole || from < rows, "a tally that stops says where");
  void *made[] = { all.kind, all.key, keys, tally.key, tally.size, tally.count, tally.row, tally.kind, tally.state };
  for (size_t i = 0; i < sizeof made / sizeof *made; i++)
    free (made[i]);
}

/* Runs of chunks, and sums by cell. */
static void
stretches (const u64 *addresses, const u64 *sizes, const u8 *states, u64 rows, const struct machine *m)
{
  u64 room = take (16), next = 0, best[2] = { 0, 0 };
  u64 *first = block (8 * room), *last = block (8 * room);
  u64 found = hg_runs (addresses, sizes, states, rows, take (512), take (256), first, last, room, &next, best);
  check (found <= room && next <= rows, "runs keep to their room");
  u64 cells = take (16), classes = 1 + take (4);
  u8 class_of[STATES];
  for (int i = 0; i < STATES; i++)
    class_of[i] = (u8) take (6);
  u64 *out = block (8 * cells * classes);
  hg_cells (addresses, sizes, states, rows, 0x10000 + take (512) - 256, 1 + take (512), cells, class_of, classes, out);
  free (first);
  free (last);
  free (out);
  (void) m;
}

/* The graph of the chunks that a walk finds; states are the input's. */
static void
graph (const struct span *span, const struct machine *m)
{
  u64 room = span->length / m->least + 1, stop;
  u64 *addresses = block (8 * room), *sizes = block (8 * room);
  u64 rows = hg_walk (span, span->base, span->base + span->length + take (64), m->word, m->swap,
                      m->alignment, m->least, addresses, sizes, room, &stop);
  u8 *states = bytes (rows);
  for (u64 row = 0; row < rows; row++)
    states[row] %= STATES;
  columns (sizes, states, rows);
  stretches (addresses, sizes, states, rows, m);
  u64 low = span->base, high = stop > low ? stop : low + 1, shift = 4 + take (4);
  u64 split = rows ? take (rows) : 0, middle = split ? addresses[split] : low;
  struct part parts[2];
  u64 count = 0;
  u32 *firsts[2] = { NULL, NULL };
  for (int which = 0; which < 2; which++)
    {
      u64 row = which ? split : 0, from = which ? middle : low, to = which ? high : middle;
      if (from == to)
        continue;
      u64 pieces = ((to - from - 1) >> shift) + 1, some = which ? rows - split : split;
      u32 *first = firsts[which] = block (4 * (pieces + 1));
      hg_index (addresses + row, some, from, shift, first, pieces);
      parts[count++] = (struct part) { *span, from, to, row, some, addresses + row, sizes + row,
                                       states + row, first, shift, take (4) * m->word };
    }
  struct heap heap = { parts, rows ? count : 0, low, high, ~(u64) 0 >> take (9), m->word, m->swap };
  u8 *reached = block (rows), *noted = block (rows);
  u32 *stack = block (4 * rows), *later = block (4 * rows);
  u64 length = take (256);
  struct span root = { bytes (length), length, take (64) };
  struct work work = { reached, noted, stack, later, 0, 0, 0 };
  hg_mark (&heap, &work, &root);
  if (take (2))
    hg_mark_interior (&heap, &work);
  check (work.waiting == 0 && work.put_off <= rows, "all that was reached was looked at");
  struct ways ways = { block (4 * rows), block (4 * rows), 0 };
  hg_from_root (&heap, &ways, &root);
  if (rows)
    hg_onward (&heap, &ways, take (rows));
  check (ways.tail <= rows, "each row is reached once");
  free (ways.from);
  free (ways.queue);
  kinds (&heap, &root, rows, m);
  u64 next = 0, some = take (8);
  u32 *chosen = block (4 * some);
  hg_reached_rows (states, reached, 0, rows, take (64), USED, BY_START, chosen, some, &next);
  check (next <= rows, "rows end at the last");
  free (chosen);
  for (u64 row = 0; row < rows; row++)
    stack[row] = (u32) row;
  room = take (64);
  u32 *from = block (4 * room), *to = block (4 * room);
  u8 *inside = block (room);
  hg_edges (&heap, stack, rows, noted, from, to, inside, room);
  void *all[] = { addresses, sizes, states, firsts[0], firsts[1], reached, noted, stack, later, from, to, inside,
                  (void *) root.data };
  for (size_t i = 0; i < sizeof all / sizeof *all; i++)
    free (all[i]);
}

int
LLVMFuzzerTestOneInput (const u8 *data, size_t size)
{
  input = data;
  left = size;
  check (hg_version () != 0, "there is a version");
  u64 kind = take (8);
  struct machine m = { kind & 1 ? 8 : 4, kind >> 1 & 1, kind & 4 ? 16 : 8, 0 };
  m.least = 4 * (u64) m.word;
  struct span span = { NULL, take (2048), 0x10000 + 8 * take (4) };
  span.data = bytes (span.length);
  walks (&span, &m);
  few_rows (&span, &m);
  graph (&span, &m);
  free ((void *) span.data);
  return 0;
}

#ifndef LIBFUZZER
static u64 state;

static u64
draw (void)
{
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return state;
}

/* A header of choices, then words that are sizes, pointers into the span, or anything. */
static size_t
invent (u8 *data, size_t most)
{
  size_t size = draw () % most;
  for (size_t at = 0; at < size; at++)
    data[at] = (u8) draw ();
  if (draw () & 1)
    return size;
  int word = data[1] & 1 ? 8 : 4;
  for (size_t at = 6; at + word <= size; at += word)
    {
      u64 value = draw (), kind = value >> 60 & 3;
      if (kind == 1)
        value = (value & 0xf0) | (value >> 20 & 1) | 0x20;
      else if (kind == 2)
        value = 0x10000 + (value & 0x7f8);
      if (kind)
        memcpy (data + at, &value, word);
    }
  return size;
}

int
main (int argc, char **argv)
{
  u8 data[4096];
  if (argc != 3)
    return 2;
  unsigned long count = strtoul (argv[1], NULL, 0);
  state = strtoul (argv[2], NULL, 0) | 1;
  for (unsigned long i = 0; i < count; i++)
    {
      size_t size = invent (data, sizeof data);
      u8 *exact = malloc (size ? size : 1);
      memcpy (exact, data, size);
      LLVMFuzzerTestOneInput (exact, size);
      free (exact);
    }
  printf ("%lu inputs\n", count);
  return 0;
}
#endif
