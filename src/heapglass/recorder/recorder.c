/* A library to preload: writes down what a program asks of glibc's malloc, call by call, in the
   order in which the calls took effect. `raw.py` reads what it writes.

   One lock is held around each call, so that the order of the records is the order of the calls;
   a thread that ends keeps the others out until it is gone, for then its tcache is emptied. What is
   written goes into a file that is mapped, so it is there however the process ends. Nothing is
   allocated: malloc's heap is what it would be without. The library needs nothing of any C library
   to be loaded (all of it is looked up), so one build serves every glibc. A process that was forked
   and goes on without exec is not recorded: its heap is not fresh. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <link.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define PUBLIC __attribute__ ((visibility ("default")))
#define RARE(condition) __builtin_expect (!!(condition), 0)
#define HERE __builtin_frame_address (0), __builtin_return_address (0)

#ifndef MADV_WIPEONFORK
# define MADV_WIPEONFORK 18
#endif

#if defined __x86_64__ && !defined __ILP32__
# define MACHINE "x86_64"
#elif defined __i386__
# define MACHINE "i386"
#elif defined __aarch64__
# define MACHINE "aarch64"
#elif defined __riscv
# define MACHINE "riscv64"
#elif defined __powerpc64__
# define MACHINE "ppc64le"
#elif defined __s390x__
# define MACHINE "s390x"
#elif defined __arm__
# define MACHINE "arm"
#else
# error "the recorder does not know this machine"
#endif

/* The file: a page, then records. The same in raw.py. */

enum
{
  MALLOC = 1, CALLOC, REALLOC, MEMALIGN, ALIGNED_ALLOC, POSIX_MEMALIGN, VALLOC, PVALLOC,
  FREE, FREE_SIZED, FREE_ALIGNED_SIZED, THREAD_START, THREAD_EXIT, TRIM, OPTION, BREAK,
  ARENA, MAPPING /* facts of the call before */
};

enum { MMAPPED = 1, LATE = 2, UNSURE = 4, PENDING = 8 };

/* Of threads: one whose place may be taken, and one that the C library cannot tell yet. */
enum { GONE = 1, UNNAMED = 8 };

enum { PAGE = 4096, WINDOW = 4 << 20, MOST_THREADS = 4096, STATE = 1 << 18 };

struct record
{
  uint8_t op, flags;
  uint16_t unused;
  uint32_t thread;
  uint64_t a, b, result;
};

struct head
{
  char mark[8];
  uint32_t version, word;
  uint64_t used; /* records */
  uint64_t pid, page_size, ncpu;
  uint64_t start_brk, brk; /* the break when the first call came */
  uint64_t main_arena, error; /* errno where the file could not grow */
  char machine[16], glibc[32];
  char libc[512], program[512];
  char abort_text[512];
  char settings[1536]; /* what of the environment malloc reads, each ended by a null */
};

_Static_assert (sizeof (struct record) == 32, "as in raw.py");
_Static_assert (sizeof (struct head) <= PAGE, "a page");

/* --- what is looked up ------------------------------------------------------------------------ */

static struct
{
  void *(*malloc) (size_t);
  void *(*calloc) (size_t, size_t);
  void *(*realloc) (void *, size_t);
  void *(*reallocarray) (void *, size_t, size_t);
  void *(*memalign) (size_t, size_t);
  void *(*aligned_alloc) (size_t, size_t);
  int (*posix_memalign) (void **, size_t, size_t);
  void *(*valloc) (size_t);
  void *(*pvalloc) (size_t);
  void (*free) (void *);
  void (*free_sized) (void *, size_t);
  void (*free_aligned_sized) (void *, size_t, size_t);
  int (*malloc_trim) (size_t);
  int (*mallopt) (int, int);
  void *(*sbrk) (intptr_t);
  int (*brk) (void *);
  long (*syscall) (long, ...);
  void *(*mmap) (void *, size_t, int, int, int, off64_t);
  int (*munmap) (void *, size_t);
  int (*madvise) (void *, size_t, int);
  int (*fallocate) (int, off64_t, off64_t);
  int (*sigaction) (int, const struct sigaction *, struct sigaction *);
  int *(*errno_at) (void);
  pthread_t (*self) (void);
  int (*key_create) (pthread_key_t *, void (*) (void *));
  int (*set_specific) (pthread_key_t, const void *);
  const char *(*version) (void);
  void **abort_text; /* __abort_msg */
} real;

extern struct r_debug _r_debug;
extern ElfW (Dyn) _DYNAMIC[] __attribute__ ((visibility ("hidden")));

static int
same (const char *a, const char *b)
{
  while (*a && *a == *b)
    a++, b++;
  return *a == *b;
}

static void
copy (char *to, const char *from, size_t room)
{
  while (--room && *from)
    *to++ = *from++;
  *to = 0;
}

static const void *
pointer (const struct link_map *map, ElfW (Sxword) tag)
{
  for (const ElfW (Dyn) *d = map->l_ld; d->d_tag != DT_NULL; d++)
    if (d->d_tag == tag)
      {
        uintptr_t at = d->d_un.d_ptr; /* the loader may have added the base, or not */
        return (const void *) (at < map->l_addr ? at + map->l_addr : at);
      }
  return NULL;
}

/* A symbol's address in one file: the version that new programs get, else an older one. */
static void *
find_in (const struct link_map *map, const char *name)
{
  const ElfW (Sym) *symbols = pointer (map, DT_SYMTAB);
  const char *strings = pointer (map, DT_STRTAB);
  const uint32_t *hashes = pointer (map, DT_GNU_HASH);
  const ElfW (Half) *versions = pointer (map, DT_VERSYM);
  if (!symbols || !strings || !hashes)
    return NULL;
  uint32_t hash = 5381;
  for (const char *c = name; *c; c++)
    hash = hash * 33 + (unsigned char) *c;
  uint32_t count = hashes[0], first = hashes[1];
  const uint32_t *buckets = hashes + 4 + hashes[2] * (sizeof (ElfW (Addr)) / 4);
  const uint32_t *chains = buckets + count - first;
  uint32_t n = buckets[hash % count];
  void *older = NULL;
  if (n < first)
    return NULL;
  for (;; n++)
    {
      const ElfW (Sym) *s = symbols + n;
      if ((chains[n] | 1) == (hash | 1) && s->st_shndx && same (strings + s->st_name, name))
        {
          void *at = (void *) (map->l_addr + s->st_value);
          if (!versions || !(versions[n] & 0x8000))
            return at;
          older = at;
        }
      if (chains[n] & 1)
        return older;
    }
}

/* Where the next library behind this one defines it, as dlsym (RTLD_NEXT) would say. */
static void *
find (const char *name, struct link_map **where)
{
  struct link_map *map = _r_debug.r_map;
  while (map && map->l_ld != _DYNAMIC)
    map = map->l_next;
  for (map = map ? map->l_next : NULL; map; map = map->l_next)
    {
      void *found = find_in (map, name);
      if (found)
        {
          if (where)
            *where = map;
          return found;
        }
    }
  return NULL;
}

static void
find_threads (void)
{
  real.key_create = find ("pthread_key_create", NULL);
  real.set_specific = find ("pthread_setspecific", NULL);
}

static struct link_map *
find_all (void)
{
  struct link_map *libc = NULL;
  static const struct { void *at; const char *name; } wanted[] = {
    { &real.calloc, "calloc" }, { &real.realloc, "realloc" },
    { &real.reallocarray, "reallocarray" }, { &real.memalign, "memalign" },
    { &real.aligned_alloc, "aligned_alloc" }, { &real.posix_memalign, "posix_memalign" },
    { &real.valloc, "valloc" }, { &real.pvalloc, "pvalloc" }, { &real.free, "free" },
    { &real.free_sized, "free_sized" }, { &real.free_aligned_sized, "free_aligned_sized" },
    { &real.malloc_trim, "malloc_trim" }, { &real.mallopt, "mallopt" },
    { &real.sbrk, "sbrk" }, { &real.brk, "brk" }, { &real.syscall, "syscall" },
    { &real.mmap, "mmap64" }, { &real.munmap, "munmap" }, { &real.madvise, "madvise" },
    { &real.fallocate, "posix_fallocate64" }, { &real.sigaction, "sigaction" },
    { &real.errno_at, "__errno_location" }, { &real.self, "pthread_self" },
    { &real.abort_text, "__abort_msg" }, { &real.malloc, "malloc" },
  };
  for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
    *(void **) wanted[i].at = find (wanted[i].name, NULL);
  find_threads ();
  *(void **) &real.version = find ("gnu_get_libc_version", &libc);
  return libc;
}

/* --- state ------------------------------------------------------------------------------------ */

struct thread
{
  uintptr_t pointer; /* the thread pointer; 0: nobody's */
  uint32_t number, tid;
  int rounds; /* of destructors of its keys */
};

/* In memory that a forked child sees as zeros. */
struct state
{
  int alive;
  int lock; /* 0 free, 1 held, 2 held and waited for */
  uintptr_t owner;
  char *frame; /* of the call that holds the lock */
  struct head *head;
  struct record *window;
  size_t used;      /* records of the window */
  uint64_t windows; /* before this one */
  struct thread *exiting;
  int exit_written;
  uint32_t numbers; /* of threads, that were given */
  int has_key;
  pthread_key_t key;
  const uintptr_t *next; /* main_arena.next */
  uintptr_t newest;      /* what it was */
  uintptr_t loader, loader_end;
  struct thread threads[MOST_THREADS];
};

_Static_assert (sizeof (struct state) <= STATE, "the room for it");

static struct state *state;
static int started; /* 1 while it starts, 2 when it has */
static char path[1024];

static size_t
read_file (const char *name, char *to, size_t room)
{
  size_t got = 0;
  long fd = real.syscall (SYS_openat, AT_FDCWD, name, O_RDONLY | O_CLOEXEC), n;
  if (fd < 0)
    return 0;
  while (got < room && (n = real.syscall (SYS_read, fd, to + got, room - got)) > 0)
    got += n;
  real.syscall (SYS_close, fd);
  return got;
}

static char *
decimal (char *to, uint64_t value)
{
  char digits[20];
  int n = 0;
  do
    digits[n++] = '0' + value % 10;
  while (value /= 10);
  while (n)
    *to++ = digits[--n];
  *to = 0;
  return to;
}

static long
futex (int *word, int op, int value, long nanoseconds)
{
  struct { long seconds, nanoseconds; } most = { 0, nanoseconds };
  return real.syscall (SYS_futex, word, op | FUTEX_PRIVATE_FLAG, value,
                       nanoseconds ? &most : NULL, NULL, 0);
}

static void
take_lock (struct state *s)
{
  int was = 0;
  if (__atomic_compare_exchange_n (&s->lock, &was, 1, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
    return;
  int error = *real.errno_at ();
  while (__atomic_exchange_n (&s->lock, 2, __ATOMIC_ACQUIRE))
    futex (&s->lock, FUTEX_WAIT, 2, 0);
  *real.errno_at () = error;
}

static void
drop_lock (struct state *s)
{
  __atomic_store_n (&s->owner, 0, __ATOMIC_RELAXED);
  if (RARE (__atomic_exchange_n (&s->lock, 0, __ATOMIC_RELEASE) == 2))
    {
      int error = *real.errno_at ();
      futex (&s->lock, FUTEX_WAKE, 1, 0);
      *real.errno_at () = error;
    }
}

/* --- records ---------------------------------------------------------------------------------- */

/* Map a part of the file. It is opened each time: a descriptor that is kept may be closed, and be
   another file's then. */
static void *
map_file (off64_t offset, size_t size, void *at)
{
  long fd = real.syscall (SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC);
  if (fd < 0)
    return MAP_FAILED;
  void *mapped = MAP_FAILED;
  int error = real.fallocate (fd, offset, size); /* a full disk would be a SIGBUS else */
  if (error)
    *real.errno_at () = error;
  else
    mapped = real.mmap (at, size, PROT_READ | PROT_WRITE, MAP_SHARED | (at ? MAP_FIXED : 0), fd,
                        offset);
  error = *real.errno_at ();
  real.syscall (SYS_close, fd);
  *real.errno_at () = error;
  return mapped;
}

static int
next_window (struct state *s)
{
  int error = *real.errno_at ();
  off64_t offset = PAGE + (off64_t) (s->windows + 1) * WINDOW;
  int good = map_file (offset, WINDOW, s->window) != MAP_FAILED;
  if (good)
    s->windows++, s->used = 0;
  else
    {
      s->head->error = *real.errno_at ();
      s->alive = 0;
    }
  *real.errno_at () = error;
  return good;
}

/* A record, whose result is not there yet. */
static struct record *
put (struct state *s, int op, uint32_t thread, uint64_t a, uint64_t b)
{
  static struct record nowhere;
  if (RARE (s->used == WINDOW / sizeof (struct record)) && !next_window (s))
    return &nowhere;
  struct record *r = s->window + s->used++;
  *r = (struct record) { op, PENDING, 0, thread, a, b, 0 };
  __atomic_store_n (&s->head->used, s->head->used + 1, __ATOMIC_RELEASE);
  return r;
}

static void
put_done (struct state *s, int op, uint32_t thread, uint64_t a, int flags)
{
  put (s, op, thread, a, 0)->flags = flags;
}

/* --- threads ---------------------------------------------------------------------------------- */

static void ending (void *);

static struct thread *
place_of (struct state *s, uintptr_t pointer)
{
  size_t n = (pointer >> 6 ^ pointer >> 12 ^ pointer >> 20) % MOST_THREADS;
  struct thread *free_one = NULL;
  for (size_t tries = 0; tries < MOST_THREADS; tries++, n = (n + 1) % MOST_THREADS)
    {
      struct thread *t = s->threads + n;
      if (t->pointer == pointer)
        return t;
      if (t->pointer == GONE && !free_one)
        free_one = t;
      if (!t->pointer)
        return free_one ? free_one : t;
    }
  return free_one ? free_one : s->threads; /* more threads at once than there is room for */
}

static struct thread *
begin_thread (struct state *s, struct thread *t, uintptr_t me)
{
  int error = *real.errno_at ();
  long tid = real.syscall (SYS_gettid);
  if (s->numbers && tid == (long) s->head->pid) /* the main thread, named by a libpthread */
    {
      *t = (struct thread) { me, 1, tid, 0 };
      return t;
    }
  *t = (struct thread) { me, ++s->numbers, tid, 0 };
  put_done (s, THREAD_START, t->number, t->tid, 0);
  if (t->number > 1 && !s->has_key)
    {
      if (!real.key_create) /* libpthread came later */
        find_threads ();
      s->has_key = real.key_create && real.set_specific && !real.key_create (&s->key, ending);
    }
  if (s->has_key && t->tid != s->head->pid)
    real.set_specific (s->key, t);
  *real.errno_at () = error;
  return t;
}

static void
write_exit (struct state *s, int flags)
{
  if (!s->exit_written)
    put_done (s, THREAD_EXIT, s->exiting->number, s->exiting->tid, flags);
  s->exit_written = 1;
}

/* Whether a thread of this process waits for something, as far as the system tells. */
static int
asleep (uint32_t tid)
{
  char name[64] = "/proc/self/task/", text[256];
  char *end = decimal (name + 16, tid);
  copy (end, "/stat", 8);
  size_t at = read_file (name, text, sizeof text);
  while (at && text[at - 1] != ')')
    at--;
  return at && text[at + 1] == 'S';
}

static int
from_loader (const struct state *s, const void *back)
{
  return (uintptr_t) back - s->loader < s->loader_end - s->loader;
}

/* A thread is ending: wait until it is gone, or its end is written. Its tcache is emptied in the
   order of the records then. The lock is held, but not while it is waited: the thread may still
   make calls. What frees the memory of ended threads has a lock of the C library, which the thread
   wants behind that point: if it sleeps, it is there. */
static void
let_exit (struct state *s, const void *back)
{
  static int word;
  int error = *real.errno_at (), tries = 0, sleeps = 0;
  uint32_t number = 0;
  while (s->exiting)
    {
      if (s->exiting->number != number)
        number = s->exiting->number, tries = sleeps = 0;
      if (real.syscall (SYS_tgkill, (long) s->head->pid, (long) s->exiting->tid, 0) < 0)
        {
          write_exit (s, 0);
          s->exiting->pointer = GONE;
          s->exiting = NULL;
          break;
        }
      if (s->exit_written && (back || tries > 20000))
        break;
      if (from_loader (s, back) && sleeps >= 3)
        write_exit (s, 0);
      else if (sleeps > 500 || tries > 20000)
        write_exit (s, UNSURE);
      drop_lock (s);
      if (++tries < 20)
        real.syscall (SYS_sched_yield);
      else
        {
          futex (&word, FUTEX_WAIT, 0, 50000);
          const struct thread *t = s->exiting;
          sleeps = t && t->number == number && asleep (t->tid) ? sleeps + 1 : 0;
        }
      take_lock (s);
    }
  *real.errno_at () = error;
}

/* A destructor of a key. glibc calls it four times if the key is set again; behind the last time
   the thread's tcache is emptied. */
static void
ending (void *value)
{
  struct state *s = state;
  struct thread *t = value;
  if (!s || !s->alive)
    return;
  if (++t->rounds < 4)
    {
      real.set_specific (s->key, t);
      return;
    }
  take_lock (s);
  let_exit (s, NULL);
  s->exiting = t;
  s->exit_written = 0;
  drop_lock (s);
}

/* --- calls ------------------------------------------------------------------------------------ */

static void start (void);

static uintptr_t
whoami (void)
{
  uintptr_t me = (uintptr_t) real.self ();
  return me ? me : UNNAMED; /* a libc without its libpthread does not say */
}

/* Whether this is the thread that ends; another may have its place in memory already. */
static int
is_exiting (struct state *s, uintptr_t me)
{
  if (s->exiting->pointer != me)
    return 0;
  int error = *real.errno_at ();
  long tid = real.syscall (SYS_gettid);
  *real.errno_at () = error;
  return tid == (long) s->exiting->tid;
}

/* Begin a call: the lock is held, and *t is who calls. NULL: not to be recorded. */
static struct state *
enter (struct thread **t, void *frame, void *back)
{
  if (RARE (started != 2))
    start ();
  struct state *s = state;
  if (RARE (!s || !s->alive))
    return NULL;
  uintptr_t me = whoami ();
  if (RARE (__atomic_load_n (&s->owner, __ATOMIC_RELAXED) == me))
    {
      if ((char *) frame < s->frame)
        return NULL; /* a call inside of a call */
    } /* else a signal handler left that call by longjmp, and the lock is still ours */
  else
    take_lock (s);
  if (RARE (s->exiting != NULL) && !is_exiting (s, me))
    let_exit (s, back);
  __atomic_store_n (&s->owner, me, __ATOMIC_RELAXED);
  s->frame = frame;
  *t = place_of (s, me);
  if (RARE ((*t)->pointer != me))
    *t = begin_thread (s, *t, me);
  if (RARE (s->exiting == *t) && from_loader (s, back))
    write_exit (s, 0); /* the loader frees what the thread had: its tcache is gone */
  if (RARE (!s->alive))
    {
      drop_lock (s);
      return NULL;
    }
  return s;
}

static struct record *
begin (struct state *s, struct thread *t, int op, uint64_t a, uint64_t b)
{
  struct record *r = put (s, op, t->number, a, b);
  if (RARE (s->exiting == t) && s->exit_written)
    r->flags |= LATE;
  return r;
}

static void
end (struct state *s, struct record *r, uint64_t result)
{
  r->result = result;
  __atomic_store_n (&r->flags, r->flags & ~PENDING, __ATOMIC_RELEASE);
  if (RARE (s->next && *s->next != s->newest))
    {
      s->newest = *s->next;
      put_done (s, ARENA, r->thread, s->newest, 0);
    }
  drop_lock (s);
}

/* End a call that gives a block: where its mapping begins is written, if it has one. */
static void *
give (struct state *s, struct record *r, void *block)
{
  const size_t *mem = block;
  if (mem && mem[-1] & 2)
    {
      uintptr_t chunk = (uintptr_t) (mem - 2);
      r->flags |= MMAPPED;
      r->result = (uintptr_t) block;
      uintptr_t mapping = chunk - (mem[-2] & ~(size_t) 1);
      if (s->next && *s->next != s->newest)
        {
          s->newest = *s->next;
          put_done (s, ARENA, r->thread, s->newest, 0);
        }
      put_done (s, MAPPING, r->thread, mapping, 0);
    }
  end (s, r, (uintptr_t) block);
  return block;
}

#define RECORD(op, a, b, call)                          \
  struct thread *t;                                     \
  struct state *s = enter (&t, HERE);                   \
  if (!s)                                               \
    return call;                                        \
  struct record *r = begin (s, t, op, (uint64_t) (a), (uint64_t) (b)); \
  return give (s, r, call)

PUBLIC void *
malloc (size_t size)
{
  RECORD (MALLOC, size, 0, real.malloc (size));
}

PUBLIC void *
calloc (size_t count, size_t size)
{
  RECORD (CALLOC, count, size, real.calloc (count, size));
}

PUBLIC void *
realloc (void *old, size_t size)
{
  RECORD (REALLOC, (uintptr_t) old, size, real.realloc (old, size));
}

PUBLIC void *
reallocarray (void *old, size_t count, size_t size)
{
  size_t product;
  if (__builtin_mul_overflow (count, size, &product))
    {
      if (started != 2)
        start ();
      *real.errno_at () = ENOMEM;
      return NULL;
    }
  return realloc (old, product);
}

PUBLIC void *
memalign (size_t alignment, size_t size)
{
  RECORD (MEMALIGN, alignment, size, real.memalign (alignment, size));
}

PUBLIC void *
aligned_alloc (size_t alignment, size_t size)
{
  RECORD (ALIGNED_ALLOC, alignment, size, real.aligned_alloc (alignment, size));
}

PUBLIC int
posix_memalign (void **to, size_t alignment, size_t size)
{
  struct thread *t;
  struct state *s = enter (&t, HERE);
  if (!s)
    return real.posix_memalign (to, alignment, size);
  struct record *r = begin (s, t, POSIX_MEMALIGN, alignment, size);
  int error = real.posix_memalign (to, alignment, size);
  give (s, r, error ? NULL : *to);
  return error;
}

PUBLIC void *
valloc (size_t size)
{
  RECORD (VALLOC, size, 0, real.valloc (size));
}

PUBLIC void *
pvalloc (size_t size)
{
  RECORD (PVALLOC, size, 0, real.pvalloc (size));
}

PUBLIC void
free (void *block)
{
  struct thread *t;
  struct state *s = block ? enter (&t, HERE) : NULL;
  if (!s)
    {
      if (block)
        real.free (block);
      return;
    }
  struct record *r = begin (s, t, FREE, (uintptr_t) block, 0);
  real.free (block);
  end (s, r, 0);
}

PUBLIC void
free_sized (void *block, size_t size)
{
  struct thread *t;
  struct state *s = block ? enter (&t, HERE) : NULL;
  int op = real.free_sized ? FREE_SIZED : FREE;
  struct record *r = s ? begin (s, t, op, (uintptr_t) block, size) : NULL;
  if (block && real.free_sized)
    real.free_sized (block, size);
  else if (block)
    real.free (block);
  if (s)
    end (s, r, 0);
}

PUBLIC void
free_aligned_sized (void *block, size_t alignment, size_t size)
{
  struct thread *t;
  struct state *s = block ? enter (&t, HERE) : NULL;
  int op = real.free_aligned_sized ? FREE_ALIGNED_SIZED : FREE;
  struct record *r = s ? begin (s, t, op, (uintptr_t) block, size) : NULL;
  if (block && real.free_aligned_sized)
    real.free_aligned_sized (block, alignment, size);
  else if (block)
    real.free (block);
  if (s)
    end (s, r, 0);
}

PUBLIC int
malloc_trim (size_t pad)
{
  struct thread *t;
  struct state *s = enter (&t, HERE);
  if (!s)
    return real.malloc_trim (pad);
  struct record *r = begin (s, t, TRIM, pad, 0);
  int done = real.malloc_trim (pad);
  end (s, r, done);
  return done;
}

PUBLIC int
mallopt (int option, int value)
{
  struct thread *t;
  struct state *s = enter (&t, HERE);
  if (!s)
    return real.mallopt (option, value);
  struct record *r = begin (s, t, OPTION, (int64_t) option, (int64_t) value);
  int done = real.mallopt (option, value);
  end (s, r, done);
  return done;
}

PUBLIC void *
sbrk (intptr_t delta)
{
  struct thread *t;
  struct state *s = enter (&t, HERE);
  if (!s)
    return real.sbrk (delta);
  struct record *r = begin (s, t, BREAK, (int64_t) delta, 0);
  void *was = real.sbrk (delta);
  end (s, r, (uintptr_t) was);
  return was;
}

PUBLIC int
brk (void *to)
{
  struct thread *t;
  struct state *s = enter (&t, HERE);
  if (!s)
    return real.brk (to);
  uintptr_t was = real.syscall (SYS_brk, 0);
  struct record *r = begin (s, t, BREAK, (int64_t) ((intptr_t) to - (intptr_t) was), 0);
  int failed = real.brk (to);
  end (s, r, failed ? UINTPTR_MAX : was);
  return failed;
}

/* --- the beginning ---------------------------------------------------------------------------- */

/* What malloc says before abort. This is called by the first of the two signals that abort sends
   itself; the second ends the process as always. */
static void
aborted (int signal)
{
  (void) signal;
  struct state *s = state;
  if (!s || !s->alive || s->owner != whoami () || !real.abort_text)
    return;
  const char *text = *real.abort_text;
  if (text)
    copy (s->head->abort_text, text + sizeof (unsigned), sizeof s->head->abort_text);
}

static void
catch_abort (void)
{
  struct sigaction is, ours = { .sa_handler = aborted, .sa_flags = SA_ONSTACK };
  if (!real.sigaction (SIGABRT, NULL, &is) && is.sa_handler == SIG_DFL)
    real.sigaction (SIGABRT, &ours, NULL);
}

static const char *
behind (const char *text, const char *start)
{
  while (*start && *text == *start)
    text++, start++;
  return *start ? NULL : text;
}

static uint64_t
number (const char *text)
{
  uint64_t value = 0;
  while (*text >= '0' && *text <= '9')
    value = value * 10 + *text++ - '0';
  return value;
}

/* main_arena: its `next` points to itself as long as it is the only one. */
static void
find_arena (struct state *s, const struct link_map *libc)
{
  const ElfW (Ehdr) *file = (const void *) libc->l_addr;
  const ElfW (Phdr) *part = (const void *) (libc->l_addr + file->e_phoff);
  uintptr_t least = sizeof (size_t) == 8 ? 2000 : 1000, most = least + 300;
  for (int n = 0; n < file->e_phnum; n++, part++)
    {
      if (part->p_type != PT_LOAD || !(part->p_flags & PF_W))
        continue;
      const uintptr_t *at = (const void *) ((libc->l_addr + part->p_vaddr + least)
                                            & -sizeof (size_t));
      const uintptr_t *stop = (const void *) (libc->l_addr + part->p_vaddr + part->p_filesz);
      for (; at + 2 < stop; at++)
        if ((uintptr_t) at - *at - least < most - least && !at[1] && at[2] == 1)
          {
            s->head->main_arena = *at;
            s->next = at;
            s->newest = *at;
            return;
          }
    }
}

static void
find_loader (struct state *s)
{
  for (struct link_map *map = _r_debug.r_map; map; map = map->l_next)
    if (map->l_addr == _r_debug.r_ldbase)
      {
        s->loader = map->l_addr;
        s->loader_end = (uintptr_t) map->l_ld;
      }
}

/* The settings that malloc reads; whether this process is to be recorded, and into what file. */
static int
read_settings (char *settings, size_t room)
{
  static char environment[1 << 17];
  size_t size = read_file ("/proc/self/environ", environment, sizeof environment - 1);
  const char *base = NULL, *parent = NULL;
  char *end = settings + room - 1;
  for (const char *one = environment; one < environment + size;)
    {
      size_t length = 0;
      while (one[length])
        length++;
      if (behind (one, "HEAPGLASS_RECORD="))
        base = behind (one, "HEAPGLASS_RECORD=");
      if (behind (one, "HEAPGLASS_RECORD_OF="))
        parent = behind (one, "HEAPGLASS_RECORD_OF=");
      if ((behind (one, "GLIBC_TUNABLES=") || behind (one, "MALLOC_"))
          && settings + length + 1 < end)
        {
          copy (settings, one, length + 1);
          settings += length + 1;
        }
      one += length + 1;
    }
  if (!base || (parent && number (parent) != (uint64_t) real.syscall (SYS_getppid)))
    return 0;
  copy (path, base, sizeof path - 64);
  return 1;
}

/* Make the file BASE.PID, or BASE.PID.N where a program before exec has had it. */
static struct head *
make_file (uint64_t pid)
{
  char *at = path;
  while (*at)
    at++;
  *at++ = '.';
  at = decimal (at, pid);
  for (int n = 2; n < 1000; n++)
    {
      long fd = real.syscall (SYS_openat, AT_FDCWD, path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC,
                              0600);
      if (fd >= 0)
        {
          real.syscall (SYS_close, fd);
          struct head *head = map_file (0, PAGE, NULL);
          return head == MAP_FAILED ? NULL : head;
        }
      if (*real.errno_at () != EEXIST)
        break;
      *at = '.';
      decimal (at + 1, n);
    }
  return NULL;
}

static void
fill_head (struct head *head, const struct link_map *libc, const char *settings)
{
  static char text[1024];
  unsigned long processors[128] = { 0 };
  copy (head->machine, MACHINE, sizeof head->machine);
  copy (head->glibc, real.version ? real.version () : "", sizeof head->glibc);
  copy (head->libc, libc->l_name, sizeof head->libc);
  for (size_t i = 0; i < sizeof head->settings; i++)
    head->settings[i] = settings[i];
  head->version = 1;
  head->word = sizeof (size_t);
  head->pid = real.syscall (SYS_getpid);
  head->page_size = PAGE;
  head->brk = head->start_brk = (uintptr_t) real.syscall (SYS_brk, 0);
  if (real.syscall (SYS_sched_getaffinity, 0, sizeof processors, processors) > 0)
    for (size_t i = 0; i < sizeof processors / sizeof *processors; i++)
      head->ncpu += __builtin_popcountl (processors[i]);
  size_t size = read_file ("/proc/self/stat", text, sizeof text - 1);
  size_t at = size;
  while (at && text[at - 1] != ')') /* the name may hold anything */
    at--;
  for (int field = 2; at < size && field < 47; at++)
    field += text[at] == ' ';
  if (at < size && number (text + at))
    head->start_brk = number (text + at);
  long length = real.syscall (SYS_readlinkat, AT_FDCWD, "/proc/self/exe", head->program,
                              sizeof head->program - 1);
  head->program[length > 0 ? length : 0] = 0;
  copy (head->mark, "hgcalls", sizeof head->mark);
}

static void
start_recording (const struct link_map *libc)
{
  static char settings[sizeof ((struct head *) NULL)->settings];
  if (!read_settings (settings, sizeof settings))
    return;
  struct head *head = make_file (real.syscall (SYS_getpid));
  if (!head)
    return;
  struct record *window = map_file (PAGE, WINDOW, NULL);
  struct state *s = real.mmap (NULL, STATE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                               -1, 0);
  if (window == MAP_FAILED || s == MAP_FAILED || real.madvise (s, STATE, MADV_WIPEONFORK))
    {
      head->error = *real.errno_at ();
      return;
    }
  s->head = head;
  s->window = window;
  fill_head (head, libc, settings);
  find_arena (s, libc);
  find_loader (s);
  catch_abort ();
  s->alive = 1;
  state = s;
}

static void
start (void)
{
  if (__atomic_exchange_n (&started, 1, __ATOMIC_ACQ_REL))
    return;
  struct link_map *libc = find_all ();
  if (real.malloc && real.free && real.syscall && real.mmap && real.madvise && real.fallocate
      && real.errno_at && real.self && real.version && real.sigaction)
    {
      int error = *real.errno_at ();
      start_recording (libc);
      *real.errno_at () = error;
    }
  started = 2;
}

static void __attribute__ ((constructor))
construct (void)
{
  if (started != 2)
    start ();
}
