/* heapglass's hot loops. Plain C11, no Python, no globals, no allocation: buffers in, columns out.

   Every function gets memory as `struct span`s: bytes of the target and the address of the first.
   Nothing outside of a span or past the room of an output array is touched, whatever the bytes are.
   loops.py has the same functions in Python; a test holds the two together. */

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define EXPORT __attribute__ ((visibility ("default")))
#define INLINE static inline __attribute__ ((always_inline))

enum { VERSION = 11 };
enum { PREV_INUSE = 1, SIZE_BITS = 7 };
enum { USED, FREE, TCACHE, FAST, TOP, MMAPPED, FENCEPOST, CORRUPT, UNKNOWN, STATES };

typedef uint64_t u64;
typedef uint32_t u32;
typedef uint8_t u8;

struct span
{
  const u8 *data;
  u64 length; /* bytes */
  u64 base;   /* address of the first one */
};

EXPORT int
hg_version (void)
{
  return VERSION;
}

/* A word of the target, of 4 or 8 bytes, in its byte order. */
INLINE u64
load (const u8 *at, int word, int swap)
{
  if (word == 8)
    {
      u64 value;
      memcpy (&value, at, 8);
      return swap ? __builtin_bswap64 (value) : value;
    }
  u32 value;
  memcpy (&value, at, 4);
  return swap ? __builtin_bswap32 (value) : value;
}

/* Make the four machines of a loop that is written once. */
#define FOR_EACH_MACHINE(call, word, swap)                                                        \
  do                                                                                              \
    {                                                                                             \
      if ((word) == 8)                                                                            \
        return (swap) ? call (8, 1) : call (8, 0);                                                \
      return (swap) ? call (4, 1) : call (4, 0);                                                  \
    }                                                                                             \
  while (0)

/* --- walking ------------------------------------------------------------------------------------ */

INLINE u64
walk (const struct span *span, u64 start, u64 end, u64 alignment, u64 least, u64 *addresses,
      u64 *sizes, u64 room, u64 *stop, int word, int swap)
{
  u64 count = 0, at = start;
  const u64 wrong = (alignment - 1) & ~(u64) SIZE_BITS;
  const u64 last = span->base + span->length;

  while (at < end && count < room && last - at >= 2 * (u64) word)
    {
      u64 field = load (span->data + (at - span->base) + word, word, swap);
      u64 size = field & ~(u64) SIZE_BITS;
      if (size < least || (field & wrong) || size > end - at)
        break;
      if (addresses)
        {
          addresses[count] = at;
          sizes[count] = field;
        }
      count++;
      at += size;
      if (at > last)
        break;
    }
  *stop = at;
  return count;
}

/* Put the chunks that lie behind each other from START to END into the columns; return how many,
   at most ROOM. *STOP is where it ended. Without columns (NULL) they are counted. */
EXPORT u64
hg_walk (const struct span *span, u64 start, u64 end, int word, int swap, u64 alignment, u64 least,
         u64 *addresses, u64 *sizes, u64 room, u64 *stop)
{
  *stop = start;
  if (start < span->base || start - span->base > span->length || least < 2 * (u64) word
      || (start - span->base) % (u64) word)
    return 0;
#define WALK(w, s) walk (span, start, end, alignment, least, addresses, sizes, room, stop, w, s)
  FOR_EACH_MACHINE (WALK, word, swap);
#undef WALK
}

/* A walk that keeps few of its rows: where it is, and what decides which row is kept next. */
struct seen
{
  u64 at;     /* where it goes on; where it ended, once it is DONE */
  u64 until;  /* the first row from here on is kept */
  u64 mark;   /* number of the mark that comes next */
  u64 rows;   /* walked */
  u64 kept;   /* address of the row that was kept last */
  u64 last[4]; /* the last row, address and size word, and the one before it */
  u64 done;
};

INLINE u64
landmarks (const struct span *span, u64 end, u64 alignment, u64 least, const u64 *marks, u64 marked,
           u64 stretch, struct seen *seen, u64 *addresses, u64 *sizes, u64 room, int word, int swap)
{
  u64 count = 0, at = seen->at, until = seen->until, before = seen->last[0];
  u64 field = seen->last[1], rows = seen->rows;
  u64 old[2] = { seen->last[2], seen->last[3] };
  const u64 wrong = (alignment - 1) & ~(u64) SIZE_BITS;
  const u64 last = span->base + span->length;
#define KEEP(row, size_word) (addresses[count] = (row), sizes[count++] = (size_word), seen->kept = (row))

  while (room - count >= 4)
    {
      seen->done = 1;
      if (at > last || at >= end || last - at < 2 * (u64) word)
        break;
      u64 next = load (span->data + (at - span->base) + word, word, swap);
      u64 size = next & ~(u64) SIZE_BITS;
      if (size < least || (next & wrong) || size > end - at)
        break;
      seen->done = 0;
      if (at >= until || !(next & PREV_INUSE))
        {
          if (rows && seen->kept != before)
            KEEP (before, field);
          KEEP (at, next);
          until = at > ~(u64) 0 - stretch ? ~(u64) 0 : at + stretch;
          while (seen->mark < marked && marks[seen->mark] < at)
            seen->mark++;
          if (seen->mark < marked && marks[seen->mark] < until)
            until = marks[seen->mark] > at ? marks[seen->mark] : at + 1;
        }
      old[0] = before, old[1] = field;
      before = at, field = next;
      rows++;
      at += size;
    }
  if (seen->done && rows > 1 && old[0] > seen->kept)
    KEEP (old[0], old[1]);
  if (seen->done && rows && before > seen->kept)
    KEEP (before, field);
#undef KEEP
  u64 lasts[4] = { before, field, old[0], old[1] };
  memcpy (seen->last, lasts, sizeof lasts);
  seen->at = at, seen->until = until, seen->rows = rows;
  return count;
}

/* Walk as hg_walk does, and put only these rows into the columns: the first and the last, those at
   MARKS (ascending) and behind one, those with P clear, the first one STRETCH or more bytes behind
   the one that was kept before; and with each of them the row before it. Begin with SEEN at the start and zeros
   else; call again until it is done. Returns how many rows there are in the room. */
EXPORT u64
hg_landmarks (const struct span *span, u64 end, int word, int swap, u64 alignment, u64 least,
              const u64 *marks, u64 marked, u64 stretch, struct seen *seen, u64 *addresses, u64 *sizes,
              u64 room)
{
  if (seen->at < span->base || (seen->at - span->base > span->length && !seen->rows)
      || least < 2 * (u64) word || (seen->at - span->base) % (u64) word)
    {
      seen->done = 1;
      return 0;
    }
#define LANDMARKS(w, s)                                                                           \
  landmarks (span, end, alignment, least, marks, marked, stretch, seen, addresses, sizes, room, w, s)
  FOR_EACH_MACHINE (LANDMARKS, word, swap);
#undef LANDMARKS
}

INLINE u64
find_chain (const struct span *span, u64 from, u64 to, u64 past, u64 limit, u64 alignment, u64 least,
            u64 wrong, u64 need, u8 *failed, int word, int swap)
{
  wrong |= (alignment - 1) & ~(u64) SIZE_BITS;
  for (u64 start = from; start < to; start += alignment)
    {
      u64 at = start, before = 0, count = 0;
      for (;;)
        {
          if (at == limit && at > past)
            return start;
          if (at - span->base > span->length || span->length - (at - span->base) < 2 * (u64) word)
            break;
          u64 place = (at - from) / alignment;
          if (at < to && failed[place / 8] & 1 << place % 8)
            break;
          const u8 *chunk = span->data + (at - span->base);
          u64 field = load (chunk + word, word, swap), size = field & ~(u64) SIZE_BITS;
          if (size < least || (field & wrong) || at >= limit || size > limit - at)
            break;
          if (at != start && !(field & PREV_INUSE) && load (chunk, word, swap) != before)
            break;
          if (at >= past && ++count >= need)
            return start;
          before = size;
          at += size;
        }
      for (u64 again = start; again < at && again < to;)
        { /* what leads there fails as well */
          u64 place = (again - from) / alignment;
          failed[place / 8] |= (u8) (1 << place % 8);
          again += load (span->data + (again - span->base) + word, word, swap) & ~(u64) SIZE_BITS;
        }
    }
  return to;
}

/* The first place in [FROM, TO), by ALIGNMENT, from which chunks lie behind each other up to LIMIT,
   or NEED of them at or behind PAST; TO if there is none. No size has a bit of WRONG, and where P is
   clear prev_size is the size before. FAILED, zeros, has a bit for each place. */
EXPORT u64
hg_find_chain (const struct span *span, u64 from, u64 to, u64 past, u64 limit, int word, int swap,
               u64 alignment, u64 least, u64 wrong, u64 need, u8 *failed)
{
  if (from < span->base || from - span->base > span->length || (from - span->base) % (u64) word
      || least < 2 * (u64) word || to > limit)
    return to;
#define FIND(w, s)                                                                                \
  find_chain (span, from, to, past, limit, alignment, least, wrong, need, failed, w, s)
  FOR_EACH_MACHINE (FIND, word, swap);
#undef FIND
}

/* --- states and sums ---------------------------------------------------------------------------- */

/* Mark as UNKNOWN the used rows that no header says to be in use. ROWS gets those that a believable
   header says to be free; the result is how many there are, also where ROOM is too small. */
EXPORT u64
hg_flags (const u64 *sizes, u8 *states, u64 count, u64 *rows, u64 room)
{
  u64 found = 0;
  for (u64 row = 1; row < count; row++)
    if (!(sizes[row] & PREV_INUSE) && states[row - 1] == USED && states[row] != CORRUPT)
      {
        states[row - 1] = UNKNOWN;
        if (found < room)
          rows[found] = row - 1;
        found++;
      }
  for (u64 row = 1; row < count; row++)
    if (states[row] == CORRUPT && states[row - 1] == USED)
      states[row - 1] = UNKNOWN;
  if (count && states[count - 1] == USED)
    states[count - 1] = UNKNOWN;
  return found;
}

/* A hash table of (state, size word): ROOM entries, a power of two; a free one has state 255. */
struct table
{
  u64 *sizes;
  u8 *states;
  u64 *values;
  u64 room;
};

INLINE u64
slot_of (const struct table *table, u64 size, u8 state)
{
  u64 slot = ((size ^ state) * 0x9E3779B97F4A7C15u) >> 32 & (table->room - 1);
  for (u64 tries = 0; tries < table->room; tries++)
    {
      if (table->states[slot] == 255
          || (table->states[slot] == state && table->sizes[slot] == size))
        return slot;
      slot = (slot + 1) & (table->room - 1);
    }
  return table->room;
}

/* Count the rows of each (state, size word). Returns 0 if the table would be more than half full;
   then it holds nothing of use. */
EXPORT int
hg_pairs (const u64 *sizes, const u8 *states, u64 count, u64 *of_size, u8 *of_state, u64 *counts,
          u64 room)
{
  struct table table = { of_size, of_state, counts, room };
  u64 filled = 0;
  for (u64 row = 0; row < count; row++)
    {
      u64 slot = slot_of (&table, sizes[row], states[row]);
      if (slot == room)
        return 0;
      if (of_state[slot] == 255)
        {
          if (++filled * 2 > room)
            return 0;
          of_state[slot] = states[row];
          of_size[slot] = sizes[row];
        }
      counts[slot]++;
    }
  return 1;
}

/* Put the rows of the pairs that the table has into ROWS. Its values are groups: a row goes to the
   next free place of its group, NEXT, as long as that is below the group's END. FIRST is the number
   of the first row. */
EXPORT void
hg_select (const u64 *sizes, const u8 *states, u64 first, u64 count, u64 *of_size, u8 *of_state,
           u64 *groups, u64 room, u64 *next, const u64 *ends, u64 *rows)
{
  struct table table = { of_size, of_state, groups, room };
  for (u64 row = 0; row < count; row++)
    {
      u64 slot = slot_of (&table, sizes[row], states[row]);
      if (slot == room || of_state[slot] == 255)
        continue;
      u64 group = groups[slot];
      if (next[group] < ends[group])
        rows[next[group]++] = first + row;
    }
}

/* --- stretches ---------------------------------------------------------------------------------- */

/* The runs of chunks behind each other whose state is in MASK and that have LEAST bytes or more, from
   row *NEXT on: FIRST and LAST are rows. BEST gets the largest of all that were seen, its bytes and its
   first row. The result is how many runs there are in the room; *NEXT is where to go on. */
EXPORT u64
hg_runs (const u64 *addresses, const u64 *sizes, const u8 *states, u64 count, u64 mask, u64 least,
         u64 *first, u64 *last, u64 room, u64 *next, u64 *best)
{
  u64 found = 0, row = *next;
  while (row < count && found < room)
    {
      if (!(mask >> states[row] & 1))
        {
          row++;
          continue;
        }
      u64 start = row, end = addresses[row];
      while (row < count && addresses[row] == end && mask >> states[row] & 1)
        end += sizes[row++] & ~(u64) SIZE_BITS;
      u64 bytes = end - addresses[start];
      if (bytes > best[0])
        {
          best[0] = bytes;
          best[1] = start;
        }
      if (bytes >= least)
        {
          first[found] = start;
          last[found++] = row - 1;
        }
    }
  *next = row;
  return found;
}

/* Add up the bytes of chunks by cell of UNIT bytes from BASE on and by class: OUT has CELLS times
   CLASSES sums; CLASS_OF says the class of a state, one that is not below CLASSES is left out. */
EXPORT void
hg_cells (const u64 *addresses, const u64 *sizes, const u8 *states, u64 count, u64 base, u64 unit,
          u64 cells, const u8 *class_of, u64 classes, u64 *out)
{
  for (u64 row = 0; row < count; row++)
    {
      u64 kind = class_of[states[row]], at = addresses[row];
      u64 end = at + (sizes[row] & ~(u64) SIZE_BITS);
      if (end < at)
        end = ~(u64) 0;
      if (kind >= classes)
        continue;
      if (at < base)
        at = base;
      for (u64 cell = (at - base) / unit; cell < cells && at < end; cell++)
        {
          u64 behind = base + (cell + 1) * unit;
          u64 stop = end < behind || behind < at ? end : behind;
          out[cell * classes + kind] += stop - at;
          at = stop;
        }
    }
}

/* --- lists -------------------------------------------------------------------------------------- */

/* Follow fd from *LINK through one span until BIN, as long as all is as it should be: links aligned
   and inside, bk the one before (*BEFORE), sizes of LEAST to MOST (0: any). CHUNKS gets them; the
   result is how many, at most ROOM. *LINK is then where it ended, and it can go on from there. */
EXPORT u64
hg_ring (const struct span *span, u64 bin, u64 *before, u64 *link, int word, int swap,
         u64 alignment, u64 least, u64 most, u64 *chunks, u64 room)
{
  u64 count = 0, at = *link, last = *before;
  u64 header = 2 * (u64) word;
  while (at != bin && count < room)
    {
      u64 offset = at - span->base;
      if (at < span->base || offset > span->length || span->length - offset < 4 * (u64) word
          || offset % (u64) word || ((at + header) & (alignment - 1)))
        break;
      const u8 *chunk = span->data + offset;
      u64 size = load (chunk + word, word, swap) & ~(u64) SIZE_BITS;
      if (size < least || (most && size > most) || size <= header
          || load (chunk + 3 * word, word, swap) != last)
        break;
      chunks[count++] = at;
      last = at;
      at = load (chunk + 2 * word, word, swap);
    }
  *link = at;
  *before = last;
  return count;
}

/* --- words -------------------------------------------------------------------------------------- */

/* Most words are none that is looked for: so many are asked at once. */
enum { TOGETHER = 8 };

INLINE u64
words_in (const struct span *span, u64 from, u64 low, u64 high, u64 mask, u64 *places, u64 room,
          u64 *next, int word, int swap)
{
  u64 found = 0, offset = from;
  while (offset < span->length && span->length - offset >= (u64) word && found < room)
    {
      const u8 *at = span->data + offset;
      if (span->length - offset >= TOGETHER * (u64) word)
        {
          int any = 0;
#pragma GCC unroll 8
          for (int i = 0; i < TOGETHER; i++)
            any |= (load (at + i * word, word, swap) & mask) - low <= high - low;
          if (!any)
            {
              offset += TOGETHER * (u64) word;
              continue;
            }
        }
      u64 value = load (at, word, swap) & mask;
      if (value - low <= high - low)
        places[found++] = offset;
      offset += (u64) word;
    }
  *next = offset;
  return found;
}

/* Put the offsets of the words with values (what MASK leaves of them) from LOW to HIGH into PLACES,
   from the offset FROM on; *NEXT is where to go on. */
EXPORT u64
hg_words_in (const struct span *span, u64 from, u64 low, u64 high, u64 mask, int word, int swap,
             u64 *places, u64 room, u64 *next)
{
#define WORDS(w, s) words_in (span, from, low, high, mask, places, room, next, w, s)
  FOR_EACH_MACHINE (WORDS, word, swap);
#undef WORDS
}

/* Words that are stored turned to the left by ROTATE bits and mixed with KEY. */
struct hidden
{
  u64 low, high; /* of the plain value, HIGH being behind the last */
  u64 key, rotate;
  u64 behind_low, behind_high; /* of the plain value of the word behind; none if they are equal */
};

INLINE u64
plain (u64 stored, const struct hidden *hidden, int word)
{
  u64 bits = 8 * (u64) word, turn = hidden->rotate % bits;
  if (turn)
    stored = stored >> turn | stored << (bits - turn);
  return (word == 8 ? stored : (u32) stored) ^ hidden->key;
}

INLINE u64
hidden_words (const struct span *span, u64 from, const struct hidden *hidden, u64 *places, u64 room,
              u64 *next, int word, int swap)
{
  u64 found = 0, offset = from, width = hidden->behind_high - hidden->behind_low;
  while (offset < span->length && span->length - offset >= (u64) word && found < room)
    {
      const u8 *at = span->data + offset;
      if (span->length - offset >= TOGETHER * (u64) word)
        {
          int any = 0;
#pragma GCC unroll 8
          for (int i = 0; i < TOGETHER; i++)
            any |= plain (load (at + i * word, word, swap), hidden, word) - hidden->low
                   < hidden->high - hidden->low;
          if (!any)
            {
              offset += TOGETHER * (u64) word;
              continue;
            }
        }
      int is = plain (load (at, word, swap), hidden, word) - hidden->low < hidden->high - hidden->low;
      if (is && width)
        is = span->length - offset >= 2 * (u64) word
             && plain (load (at + word, word, swap), hidden, word) - hidden->behind_low < width;
      if (is)
        places[found++] = offset;
      offset += (u64) word;
    }
  *next = offset;
  return found;
}

/* As hg_words_in, for words that are stored hidden. */
EXPORT u64
hg_hidden_words (const struct span *span, u64 from, const struct hidden *hidden, int word, int swap,
                 u64 *places, u64 room, u64 *next)
{
#define HIDDEN(w, s) hidden_words (span, from, hidden, places, room, next, w, s)
  FOR_EACH_MACHINE (HIDDEN, word, swap);
#undef HIDDEN
}

/* --- references --------------------------------------------------------------------------------- */

/* Rows of a segment's columns, the bytes that the blocks of these rows are in, and where among the
   rows each piece of the addresses begins: first[k] is the first row at or above low + (k << shift),
   one entry more than there are pieces. */
struct part
{
  struct span span;
  u64 low, high; /* of the rows' chunks; all addresses of rows lie in [low, high), ascending */
  u64 row, rows; /* numbers of the rows, counted over all parts */
  const u64 *addresses;
  const u64 *sizes;
  const u8 *states;
  const u32 *first;
  u64 shift;
  u64 less; /* what a block has less than its chunk's size */
};

struct heap
{
  const struct part *parts; /* ascending, by address and by row */
  u64 count;
  u64 low, high; /* of all parts */
  u64 mask;      /* what of a word is an address */
  int word, swap;
};

/* What was reached so far, and what only an interior pointer reached. All have as many entries as
   there are rows; each row is put into each at most once. */
struct work
{
  u8 *reached, *noted;
  u32 *stack, *later;
  u64 waiting, put_off;
  u64 looked; /* of LATER: so many were looked at */
};

enum { NOT_REACHED, BY_START, BY_INTERIOR };
enum { AHEAD = 16 };
enum { AT_ONCE = 1 << 20 }; /* blocks of a call: between two, who asked may be interrupted */

EXPORT void
hg_index (const u64 *addresses, u64 rows, u64 low, u64 shift, u32 *first, u64 pieces)
{
  u64 at = 0;
  for (u64 piece = 0; piece <= pieces; piece++)
    {
      while (at < rows && (addresses[at] - low) >> shift < piece)
        at++;
      first[piece] = (u32) at;
    }
}

INLINE const struct part *
part_at (const struct heap *heap, u64 chunk, const struct part *hint)
{
  if (chunk - hint->low < hint->high - hint->low)
    return hint;
  u64 low = 0, high = heap->count;
  while (low < high)
    {
      u64 middle = (low + high) / 2;
      const struct part *part = &heap->parts[middle];
      if (chunk < part->low)
        high = middle;
      else if (chunk >= part->high)
        low = middle + 1;
      else
        return part;
    }
  return NULL;
}

INLINE const struct part *
part_with (const struct heap *heap, u64 row, const struct part *hint)
{
  if (row - hint->row < hint->rows)
    return hint;
  u64 low = 0, high = heap->count;
  while (low < high)
    {
      u64 middle = (low + high) / 2;
      const struct part *part = &heap->parts[middle];
      if (row < part->row)
        high = middle;
      else if (row - part->row >= part->rows)
        low = middle + 1;
      else
        return part;
    }
  return NULL;
}

/* The row of the block that POINTER is a reference to, or -1: it lies in [mem, mem + usable). */
INLINE int64_t
row_of (const struct heap *heap, u64 pointer, const struct part **hint, int word, int *start)
{
  u64 chunk = (pointer & heap->mask) - 2 * (u64) word; /* if it is one to mem */
  if (chunk - heap->low >= heap->high - heap->low)
    return -1;
  const struct part *part = part_at (heap, chunk, *hint);
  if (!part)
    return -1;
  *hint = part;
  u64 piece = (chunk - part->low) >> part->shift;
  u64 low = part->first[piece], high = part->first[piece + 1];
  /* behind the last row at or below: in this piece, or the first of it, then the one before it */
  while (low < high)
    {
      u64 middle = (low + high) / 2;
      if (part->addresses[middle] <= chunk)
        low = middle + 1;
      else
        high = middle;
    }
  if (!low--)
    return -1;
  u64 offset = chunk - part->addresses[low], size = part->sizes[low] & ~(u64) SIZE_BITS;
  u8 state = part->states[low];
  if (size <= part->less || offset >= size - part->less)
    return -1;
  if (state != USED && state != UNKNOWN && state != MMAPPED)
    return -1;
  *start = offset == 0;
  return (int64_t) (part->row + low);
}

/* The bytes of a row's block, as far as its part's span has them. */
INLINE const u8 *
bytes_of (const struct part *part, u64 row, int word, u64 *length)
{
  u64 chunk = part->addresses[row - part->row];
  u64 size = part->sizes[row - part->row] & ~(u64) SIZE_BITS;
  u64 mem = chunk + 2 * (u64) word, offset = mem - part->span.base;
  if (mem < part->span.base || offset >= part->span.length || size <= part->less)
    return NULL;
  u64 usable = size - part->less, left = part->span.length - offset;
  *length = usable < left ? usable : left;
  return part->span.data + offset;
}

INLINE void
scan (const struct heap *heap, struct work *work, const u8 *at, u64 length, int by, int word,
      int swap)
{
  const struct part *hint = heap->parts;
  int start = 0;
  for (u64 offset = 0; length - offset >= (u64) word; offset += word)
    {
      int64_t row = row_of (heap, load (at + offset, word, swap), &hint, word, &start);
      if (row < 0 || work->reached[row])
        continue;
      if (start || by == BY_INTERIOR)
        {
          work->reached[row] = (u8) by;
          work->stack[work->waiting++] = (u32) row;
        }
      else if (!work->noted[row])
        {
          work->noted[row] = 1;
          work->later[work->put_off++] = (u32) row;
        }
    }
}

/* Whether all that waits was looked at. */
INLINE int
drain (const struct heap *heap, struct work *work, int by, u64 *budget, int word, int swap)
{
  /* what is taken from the stack is asked of memory, and looked at a little later */
  struct { const u8 *at; u64 length; } ahead[AHEAD];
  u64 taken = 0, done = 0;
  const struct part *part = heap->parts;
  while ((work->waiting && *budget) || done < taken)
    {
      if (work->waiting && *budget && taken - done < AHEAD)
        {
          --*budget;
          u64 row = work->stack[--work->waiting], length;
          const struct part *its = part_with (heap, row, part);
          const u8 *at = its ? bytes_of (its, row, word, &length) : NULL;
          if (!at)
            continue;
          part = its;
          __builtin_prefetch (at);
          ahead[taken % AHEAD].at = at;
          ahead[taken++ % AHEAD].length = length;
          continue;
        }
      scan (heap, work, ahead[done % AHEAD].at, ahead[done % AHEAD].length, by, word, swap);
      done++;
    }
  return !work->waiting;
}

INLINE int
mark (const struct heap *heap, struct work *work, const struct span *root, int word, int swap)
{
  u64 skip = -root->base & (u64) (word - 1);
  if (skip < root->length)
    scan (heap, work, root->data + skip, root->length - skip, BY_START, word, swap);
  u64 budget = AT_ONCE;
  return drain (heap, work, BY_START, &budget, word, swap);
}

/* Mark the blocks that pointers to the start of blocks lead to from ROOT's words: REACHED is 1. The
   result is whether it is done: if not, call again, with an empty root. */
EXPORT int
hg_mark (const struct heap *heap, struct work *work, const struct span *root)
{
  if (!heap->count)
    return 1;
#define MARK(w, s) mark (heap, work, root, w, s)
  FOR_EACH_MACHINE (MARK, heap->word, heap->swap);
#undef MARK
}

INLINE int
mark_interior (const struct heap *heap, struct work *work, int word, int swap)
{
  u64 budget = AT_ONCE;
  while (drain (heap, work, BY_INTERIOR, &budget, word, swap) && work->looked < work->put_off)
    {
      u32 row = work->later[work->looked++];
      if (work->reached[row])
        continue;
      work->reached[row] = BY_INTERIOR;
      work->stack[work->waiting++] = row;
    }
  return !work->waiting;
}

/* After all roots: mark the blocks that are reached only if a pointer to the inside of a block counts
   as well: REACHED is 2. The result is whether it is done: if not, call again. */
EXPORT int
hg_mark_interior (const struct heap *heap, struct work *work)
{
  if (!heap->count)
    return 1;
#define MARK(w, s) mark_interior (heap, work, w, s)
  FOR_EACH_MACHINE (MARK, heap->word, heap->swap);
#undef MARK
}

/* Put the rows from FROM to COUNT whose state is STATE and that were reached in this WAY into ROWS,
   counted from BASE; *NEXT is where to go on. */
EXPORT u64
hg_reached_rows (const u8 *states, const u8 *reached, u64 from, u64 count, u64 base, int state,
                 int way, u32 *rows, u64 room, u64 *next)
{
  u64 found = 0, row = from;
  for (; row < count && found < room; row++)
    if (states[row] == state && reached[row] == way)
      rows[found++] = (u32) (base + row);
  *next = row;
  return found;
}

INLINE u64
edges (const struct heap *heap, const u32 *rows, u64 count, const u8 *wanted, u32 *from, u32 *to,
       u8 *inside, u64 room, int word, int swap)
{
  u64 found = 0;
  const struct part *hint = heap->parts, *part = heap->parts;
  for (u64 number = 0; number < count; number++)
    {
      u64 length;
      int start = 0;
      part = part_with (heap, rows[number], part ? part : heap->parts);
      const u8 *at = part ? bytes_of (part, rows[number], word, &length) : NULL;
      if (!at)
        continue;
      for (u64 offset = 0; length - offset >= (u64) word; offset += word)
        {
          int64_t row = row_of (heap, load (at + offset, word, swap), &hint, word, &start);
          if (row < 0 || !wanted[row])
            continue;
          if (found < room)
            {
              from[found] = rows[number];
              to[found] = (u32) row;
              inside[found] = !start;
            }
          found++;
        }
    }
  return found;
}

/* The references that the blocks of ROWS hold to the blocks that are WANTED: FROM and TO are rows.
   The result is how many there are, also where ROOM is too small. */
EXPORT u64
hg_edges (const struct heap *heap, const u32 *rows, u64 count, const u8 *wanted, u32 *from, u32 *to,
          u8 *inside, u64 room)
{
  if (!heap->count)
    return 0;
#define EDGES(w, s) edges (heap, rows, count, wanted, from, to, inside, room, w, s)
  FOR_EACH_MACHINE (EDGES, heap->word, heap->swap);
#undef EDGES
}

/* --- shortest ways ------------------------------------------------------------------------------ */

/* Who led to each row first: 0 nobody, FROM_ROOT a root, else a row plus one. QUEUE has the rows in
   the order in which they were reached, TAIL of them; both have an entry for each row. */
struct ways
{
  u32 *from, *queue;
  u64 tail;
};

#define FROM_ROOT 0xffffffffu

INLINE void
spread (const struct heap *heap, struct ways *ways, const u8 *at, u64 length, u32 from, int word,
        int swap)
{
  const struct part *hint = heap->parts;
  int start = 0;
  for (u64 offset = 0; length - offset >= (u64) word; offset += word)
    {
      int64_t row = row_of (heap, load (at + offset, word, swap), &hint, word, &start);
      if (row < 0 || ways->from[row])
        continue;
      ways->from[row] = from;
      ways->queue[ways->tail++] = (u32) row;
    }
}

INLINE int
from_root (const struct heap *heap, struct ways *ways, const struct span *root, int word, int swap)
{
  u64 skip = -root->base & (u64) (word - 1);
  if (skip < root->length)
    spread (heap, ways, root->data + skip, root->length - skip, FROM_ROOT, word, swap);
  return 1;
}

/* Take the rows that ROOT's words refer to into the queue. */
EXPORT int
hg_from_root (const struct heap *heap, struct ways *ways, const struct span *root)
{
  if (!heap->count)
    return 1;
#define FROM(w, s) from_root (heap, ways, root, w, s)
  FOR_EACH_MACHINE (FROM, heap->word, heap->swap);
#undef FROM
}

INLINE int
onward (const struct heap *heap, struct ways *ways, u64 target, int word, int swap)
{
  const struct part *part = heap->parts;
  for (u64 head = 0; head < ways->tail && !ways->from[target]; head++)
    {
      u64 row = ways->queue[head], length;
      part = part_with (heap, row, part ? part : heap->parts);
      const u8 *at = part ? bytes_of (part, row, word, &length) : NULL;
      if (at)
        spread (heap, ways, at, length, (u32) row + 1, word, swap);
    }
  return 1;
}

/* Go on from the rows in the queue, nearest first, until TARGET, a row, is reached. */
EXPORT int
hg_onward (const struct heap *heap, struct ways *ways, u64 target)
{
  if (!heap->count)
    return 1;
#define ONWARD(w, s) onward (heap, ways, target, w, s)
  FOR_EACH_MACHINE (ONWARD, heap->word, heap->swap);
#undef ONWARD
}

/* --- what blocks are ---------------------------------------------------------------------------- */

/* What blocks are, by the words of their holders, by their own, and by bytes; as in kinds.py. */
enum
{
  NO_KIND,
  TABLE,
  TREE,
  LIST,
  VECTOR,
  STRING,
  DEQUE_MAP,
  DEQUE_PART,
  BUCKETS,
  HASH_NODE,
  KEYED,
  TEXT,
  POINTERS,
  ZEROS
};

enum { LEAST_TEXT = 4, LEAST_CAPACITY = 15, LEAST_MAP = 8 };

/* What is known of each row, and what of malloc is needed to tell a request from a chunk's size.
   STEPS is how many nodes of hash tables may yet be looked at. */
struct kinds
{
  u8 *kind;
  u64 *key;
  u64 alignment, least, page, steps;
};

/* A block that a pointer leads to the start of, or into. */
struct block
{
  const u8 *data;
  u64 mem, length;
  int64_t row; /* -1: there is none */
  int start;
};

INLINE struct block
block_of (const struct heap *heap, u64 pointer, const struct part **hint, int word)
{
  struct block found = { NULL, 0, 0, -1, 0 };
  found.row = row_of (heap, pointer, hint, word, &found.start);
  if (found.row < 0)
    return found;
  found.data = bytes_of (*hint, (u64) found.row, word, &found.length);
  found.mem = (*hint)->addresses[(u64) found.row - (*hint)->row] + 2 * (u64) word;
  if (!found.data)
    found.length = 0;
  return found;
}

/* Whether malloc (NEED) could have made the chunk of a row. */
INLINE int
fits (const struct part *part, u64 row, u64 need, const struct kinds *kinds, int word)
{
  u64 size = part->sizes[row - part->row] & ~(u64) SIZE_BITS, usable = size - part->less;
  if (need > usable)
    return 0;
  if (part->states[row - part->row] == MMAPPED)
    return usable - need < kinds->page + kinds->alignment;
  u64 chunk = (need + word + kinds->alignment - 1) & ~(kinds->alignment - 1);
  if (chunk < kinds->least)
    chunk = kinds->least;
  return chunk <= size && size - chunk < kinds->least;
}

/* The word at a place of a block, 0 if it has none there. */
INLINE u64
word_in (const struct block *block, u64 offset, int word, int swap, int *there)
{
  *there = offset < block->length && block->length - offset >= (u64) word;
  return *there ? load (block->data + offset, word, swap) : 0;
}

INLINE int
is_word (const struct block *block, u64 offset, u64 value, u64 mask, int word, int swap)
{
  int there;
  u64 found = word_in (block, offset, word, swap, &there);
  return there && (found & mask) == value;
}

/* Follow the nodes of a hash table: COUNT of them, and no more. With MARK they get their kind. */
INLINE int
hash_nodes (const struct heap *heap, struct kinds *kinds, u64 first, u64 count, int mark, int word,
            int swap)
{
  const struct part *hint = heap->parts;
  int there;
  for (; count; count--)
    {
      struct block node = block_of (heap, first, &hint, word);
      if (node.row < 0 || !node.start || !kinds->steps)
        return 0;
      kinds->steps--;
      first = word_in (&node, 0, word, swap, &there);
      if (!there)
        return 0;
      if (mark && !kinds->kind[node.row])
        kinds->kind[node.row] = HASH_NODE;
    }
  return first == 0;
}

INLINE int
deque (const struct heap *heap, struct kinds *kinds, const struct block *map, const u64 *words,
       int word, int swap)
{
  const struct part *hint = heap->parts;
  u64 mask = heap->mask, end = map->mem + words[1] * word;
  u64 cur = words[2] & mask, first = words[3] & mask, last = words[4] & mask;
  u64 node = words[5] & mask, back = words[9] & mask;
  if (words[1] < LEAST_MAP || cur < first || cur > last || first >= last)
    return 0;
  if (node < map->mem || node >= end || back < node || back >= end)
    return 0;
  if ((node - map->mem) % word || (back - map->mem) % word)
    return 0;
  if (!is_word (map, node - map->mem, first, mask, word, swap))
    return 0;
  kinds->kind[map->row] = DEQUE_MAP;
  for (; node <= back; node += word)
    {
      int there;
      struct block part
          = block_of (heap, word_in (map, node - map->mem, word, swap, &there), &hint, word);
      if (part.row >= 0 && part.start && !kinds->kind[part.row])
        kinds->kind[part.row] = DEQUE_PART;
    }
  return 1;
}

/* Tell what a block is from the words of its holder: the pointer to it and those behind. */
INLINE void
held (const struct heap *heap, struct kinds *kinds, const struct part *part,
      const struct block *block, const u64 *words, u64 count, int word, int swap)
{
  u64 row = (u64) block->row, mask = heap->mask;
  u64 fin = words[1] & mask, end = words[2] & mask;
  if (fin >= block->mem && fin <= end && end > block->mem
      && fits (part, row, end - block->mem, kinds, word))
    kinds->kind[row] = VECTOR;
  else if (words[2] >= LEAST_CAPACITY && words[1] <= words[2] && words[2] < (u64) 1 << 62
           && words[1] < block->length && !block->data[words[1]]
           && fits (part, row, words[2] + 1, kinds, word))
    kinds->kind[row] = STRING;
  else if (count > 3 && words[1] > 1 && words[1] < (u64) 1 << 48
           && fits (part, row, words[1] * word, kinds, word))
    {
      if (words[3] && words[3] <= kinds->steps
          && hash_nodes (heap, kinds, words[2], words[3], 0, word, swap))
        {
          kinds->kind[row] = BUCKETS;
          hash_nodes (heap, kinds, words[2], words[3], 1, word, swap);
        }
      else if (count > 9)
        deque (heap, kinds, block, words, word, swap);
    }
}

INLINE void
holders (const struct heap *heap, struct kinds *kinds, const u8 *at, u64 length, int word, int swap)
{
  const struct part *hint = heap->parts;
  u64 words[10];
  for (u64 offset = 0; length - offset >= 3 * (u64) word; offset += word)
    {
      words[0] = load (at + offset, word, swap);
      if (((words[0] & heap->mask) - 2 * (u64) word) - heap->low >= heap->high - heap->low)
        continue;
      struct block block = block_of (heap, words[0], &hint, word);
      if (block.row < 0 || !block.start || kinds->kind[block.row])
        continue;
      u64 count = (length - offset) / word;
      count = count < 10 ? count : 10;
      for (u64 number = 1; number < count; number++)
        words[number] = load (at + offset + number * word, word, swap);
      held (heap, kinds, hint, &block, words, count, word, swap);
    }
}

INLINE int
held_by_root (const struct heap *heap, struct kinds *kinds, const struct span *root, int word,
              int swap)
{
  u64 skip = -root->base & (u64) (word - 1);
  if (skip < root->length)
    holders (heap, kinds, root->data + skip, root->length - skip, word, swap);
  return 1;
}

/* Tell the kinds of the blocks that ROOT's words hold as a container holds them. */
EXPORT int
hg_held_by_root (const struct heap *heap, struct kinds *kinds, const struct span *root)
{
  if (!heap->count)
    return 1;
#define HELD(w, s) held_by_root (heap, kinds, root, w, s)
  FOR_EACH_MACHINE (HELD, heap->word, heap->swap);
#undef HELD
}

/* Blocks that are in use, part by part: AT and LENGTH are a row's bytes. */
#define FOR_EACH_BLOCK(heap, word)                                                                \
  for (const struct part *part = (heap)->parts; part < (heap)->parts + (heap)->count; part++)      \
    for (u64 row = part->row, length = 0; row < part->row + part->rows; row++)                     \
      if (in_use (part->states[row - part->row]))                                                 \
        for (const u8 *at = bytes_of (part, row, word, &length); at; at = NULL)

INLINE int
in_use (u8 state)
{
  return state == USED || state == MMAPPED || state == UNKNOWN;
}

INLINE int
held_by_blocks (const struct heap *heap, struct kinds *kinds, int word, int swap)
{
  FOR_EACH_BLOCK (heap, word)
    holders (heap, kinds, at, length, word, swap);
  return 1;
}

/* The same for the words of all blocks. */
EXPORT int
hg_held_by_blocks (const struct heap *heap, struct kinds *kinds)
{
#define HELD(w, s) held_by_blocks (heap, kinds, w, s)
  FOR_EACH_MACHINE (HELD, heap->word, heap->swap);
#undef HELD
}

INLINE int
in_ranges (const u64 *ranges, u64 count, u64 value)
{
  u64 low = 0, high = count;
  while (low < high)
    {
      u64 middle = (low + high) / 2;
      if (value < ranges[2 * middle])
        high = middle;
      else if (value >= ranges[2 * middle + 1])
        low = middle + 1;
      else
        return 1;
    }
  return 0;
}

/* How a link of a node answers: 1 it leads back, -1 it leads to a block that does not, 0 unknown. */
INLINE int
leads_back (const struct heap *heap, u64 pointer, u64 offset, u64 mem, const struct part **hint,
            int word, int swap)
{
  struct block there = block_of (heap, pointer, hint, word);
  if (there.row < 0)
    return 0;
  u64 inside = (pointer & heap->mask) - there.mem;
  return is_word (&there, inside + offset, mem, heap->mask, word, swap) ? 1 : -1;
}

INLINE int
is_tree_node (const struct heap *heap, const u8 *at, u64 length, u64 mem, const struct part **hint,
              int word, int swap)
{
  if (length < 4 * (u64) word || load (at, 4, swap) > 1) /* the colour, an int */
    return 0;
  u64 parent = load (at + word, word, swap);
  int proofs = 0;
  for (int side = 2; side < 4; side++)
    {
      u64 child = load (at + side * word, word, swap);
      if (!child)
        continue;
      if (leads_back (heap, child, word, mem, hint, word, swap) < 1)
        return 0;
      proofs++;
    }
  if (!parent || (parent & heap->mask) == mem)
    return 0;
  int upward = leads_back (heap, parent, 2 * word, mem, hint, word, swap);
  if (upward < 0)
    upward = leads_back (heap, parent, 3 * word, mem, hint, word, swap);
  if (upward < 0)
    upward = leads_back (heap, parent, word, mem, hint, word, swap);
  return upward < 0 ? 0 : proofs + upward > 0;
}

INLINE int
is_list_node (const struct heap *heap, const u8 *at, u64 length, u64 mem, const struct part **hint,
              int word, int swap)
{
  if (length < 2 * (u64) word)
    return 0;
  u64 next = load (at, word, swap), prev = load (at + word, word, swap);
  if (!next || !prev || (next & heap->mask) == mem)
    return 0;
  int forth = leads_back (heap, next, word, mem, hint, word, swap);
  if (forth < 0)
    return 0;
  int back = leads_back (heap, prev, 0, mem, hint, word, swap);
  return back < 0 ? 0 : forth + back > 0;
}

INLINE int
by_words (const struct heap *heap, struct kinds *kinds, const u64 *ranges, u64 count, int word,
          int swap)
{
  const struct part *hint = heap->parts;
  FOR_EACH_BLOCK (heap, word)
    {
      if (kinds->kind[row] || length < (u64) word)
        continue;
      u64 first = load (at, word, swap) & heap->mask;
      u64 mem = part->addresses[row - part->row] + 2 * (u64) word;
      if (first && !(first % word) && in_ranges (ranges, count, first))
        {
          kinds->kind[row] = TABLE;
          kinds->key[row] = first;
        }
      else if (is_tree_node (heap, at, length, mem, &hint, word, swap))
        kinds->kind[row] = TREE;
      else if (is_list_node (heap, at, length, mem, &hint, word, swap))
        kinds->kind[row] = LIST;
    }
  return 1;
}

/* Tell the kinds of blocks from their own first words. RANGES are COUNT pairs, ascending: what a
   table of virtual functions can be in. */
EXPORT int
hg_by_words (const struct heap *heap, struct kinds *kinds, const u64 *ranges, u64 count)
{
#define WORDS(w, s) by_words (heap, kinds, ranges, count, w, s)
  FOR_EACH_MACHINE (WORDS, heap->word, heap->swap);
#undef WORDS
}

INLINE int
by_key (const struct heap *heap, struct kinds *kinds, u64 offset, const u64 *keys, u64 count,
        int word, int swap)
{
  FOR_EACH_BLOCK (heap, word)
    {
      if (kinds->kind[row] || length < (u64) word || offset > length - word)
        continue;
      u64 value = load (at + offset, word, swap) & heap->mask, low = 0, high = count;
      while (low < high)
        {
          u64 middle = (low + high) / 2;
          if (keys[middle] < value)
            low = middle + 1;
          else
            high = middle;
        }
      if (low < count && keys[low] == value)
        {
          kinds->kind[row] = KEYED;
          kinds->key[row] = value;
        }
    }
  return 1;
}

/* Tell the kinds of the blocks whose word at OFFSET is one of KEYS, which ascend. */
EXPORT int
hg_by_key (const struct heap *heap, struct kinds *kinds, u64 offset, const u64 *keys, u64 count)
{
#define KEY(w, s) by_key (heap, kinds, offset, keys, count, w, s)
  FOR_EACH_MACHINE (KEY, heap->word, heap->swap);
#undef KEY
}

INLINE int
is_text (const u8 *at, u64 length)
{
  u64 run = 0;
  while (run < length
         && ((at[run] >= 32 && at[run] < 127) || at[run] == 9 || at[run] == 10 || at[run] == 13))
    run++;
  return run >= LEAST_TEXT && run < length && !at[run];
}

INLINE int
are_zeros (const u8 *at, u64 length)
{
  return !at[0] && !memcmp (at, at + 1, length - 1);
}

INLINE int
are_pointers (const struct heap *heap, const u8 *at, u64 length, const struct part **hint, int word,
              int swap)
{
  u64 found = 0;
  int start;
  for (u64 offset = 0; length - offset >= (u64) word; offset += word)
    {
      u64 value = load (at + offset, word, swap);
      if (!value)
        continue;
      if (row_of (heap, value, hint, word, &start) < 0)
        return 0;
      found++;
    }
  return found > 1;
}

INLINE int
by_contents (const struct heap *heap, struct kinds *kinds, int word, int swap)
{
  const struct part *hint = heap->parts;
  int start;
  FOR_EACH_BLOCK (heap, word)
    {
      if (kinds->kind[row] || !length)
        continue;
      /* a pointer's bytes can be letters */
      if (is_text (at, length)
          && (length < (u64) word || row_of (heap, load (at, word, swap), &hint, word, &start) < 0))
        kinds->kind[row] = TEXT;
      else if (are_zeros (at, length))
        kinds->kind[row] = ZEROS;
      else if (are_pointers (heap, at, length, &hint, word, swap))
        kinds->kind[row] = POINTERS;
    }
  return 1;
}

/* Tell text, zeros and arrays of pointers among the rest. */
EXPORT int
hg_by_contents (const struct heap *heap, struct kinds *kinds)
{
#define CONTENTS(w, s) by_contents (heap, kinds, w, s)
  FOR_EACH_MACHINE (CONTENTS, heap->word, heap->swap);
#undef CONTENTS
}

/* Groups of blocks in use that are alike: a hash table of ROOM entries, a power of two. */
struct tally
{
  u64 *key, *size, *count, *row;
  u8 *kind, *state;
  u64 room, used;
};

/* Count the blocks in use by kind, key, size and state, from row *FROM on; each group has its first
   row. Stops before a row for which there is no room: that is then in *FROM. */
EXPORT int
hg_tally (const struct heap *heap, const struct kinds *kinds, struct tally *tally, u64 *from)
{
  for (const struct part *part = heap->parts; part < heap->parts + heap->count; part++)
    for (u64 at = *from > part->row ? *from - part->row : 0; at < part->rows; at++)
      {
        u64 row = part->row + at, size = part->sizes[at] & ~(u64) SIZE_BITS;
        u8 kind = kinds->kind[row], state = part->states[at];
        if (!in_use (state))
          continue;
        u64 key = kinds->key[row], hash = (key ^ size << 8 ^ kind ^ (u64) state << 5);
        u64 slot = (hash * 0x9E3779B97F4A7C15u) >> 32 & (tally->room - 1);
        while (tally->count[slot]
               && (tally->key[slot] != key || tally->size[slot] != size || tally->kind[slot] != kind
                   || tally->state[slot] != state))
          slot = (slot + 1) & (tally->room - 1);
        if (!tally->count[slot])
          {
            if (tally->used >= tally->room / 2)
              {
                *from = row;
                return 0;
              }
            tally->used++;
            tally->key[slot] = key;
            tally->size[slot] = size;
            tally->kind[slot] = kind;
            tally->state[slot] = state;
            tally->row[slot] = row;
          }
        tally->count[slot]++;
      }
  return 1;
}
