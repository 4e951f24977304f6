// A heap of N million chunks, with leaks that are known: `planted N THREADS REPORT [abort]`.
//
// Maps, lists, vectors, strings and plain blocks, as a C++ service has them; one in a hundred is
// leaked: lists of three nodes whose head nobody keeps, single blocks, and pairs that point to each
// other. REPORT gets what was planted, then the process stops itself with SIGABRT (a core) or waits.
// Nothing points at a leak by accident.

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <list>
#include <malloc.h>
#include <map>
#include <new>
#include <string>
#include <thread>
#include <unistd.h>
#include <unordered_map>
#include <vector>

namespace
{

struct Node
{
  Node *next;
  std::uint64_t payload[3];
};

struct Shape
{
  virtual ~Shape () = default;
  virtual int corners () const = 0;
  Shape *neighbour = nullptr;
};

struct Square : Shape
{
  int corners () const override { return 4; }
  long side = 7;
};

struct Circle : Shape
{
  int corners () const override { return 0; }
  double radius = 1.5;
  char name[24] = "a circle";
};

struct World
{
  std::map<std::uint64_t, std::string> names;
  std::unordered_map<std::uint64_t, std::vector<int>> rows;
  std::list<std::string> lines;
  std::vector<Shape *> shapes;
  std::vector<void *> blocks;
  std::vector<void *> mapped;
};

struct Planted
{
  std::uint64_t blocks, bytes, heads, cycles;
};

std::atomic<std::uint64_t> chunks{ 0 };
World *volatile worlds[64]; // volatile: the one place that holds them must not be left out
Planted planted[64];

void
plant (Planted &into, void *mem)
{
  into.blocks++;
  into.bytes += malloc_usable_size (mem);
}

Node *
node (Node *next)
{
  Node *made = static_cast<Node *> (std::malloc (sizeof (Node)));
  std::memset (made, 0, sizeof *made);
  made->next = next;
  return made;
}

__attribute__ ((noinline)) void
leak (Planted &into, std::uint64_t turn)
{
  if (turn % 3 == 0)
    {
      Node *last = node (nullptr), *middle = node (last), *head = node (middle);
      plant (into, last);
      plant (into, middle);
      plant (into, head);
      into.heads++;
    }
  else if (turn % 3 == 1)
    {
      void *block = std::malloc (48 + turn % 5 * 16);
      std::memset (block, 0, malloc_usable_size (block));
      plant (into, block);
      into.heads++;
    }
  else
    {
      Node *one = node (nullptr), *two = node (one);
      one->next = two;
      plant (into, one);
      plant (into, two);
      into.cycles++;
    }
}

// The stack that held the pointers of what was leaked is written over.
__attribute__ ((noinline)) void
scrub ()
{
  volatile char room[16384];
  for (std::size_t i = 0; i < sizeof room; i++)
    room[i] = 0;
}

void
fill (int number, std::uint64_t wanted)
{
  World &world = *(worlds[number] = new World);
  std::uint64_t made = 0, turn = 0;
  while (made < wanted)
    {
      turn++;
      switch (turn % 8)
        {
        case 0:
          world.names[turn * 2654435761u % 0x100000000] = std::string (turn % 40, 'n');
          made += 1 + (turn % 40 > 15);
          break;
        case 1:
          world.lines.emplace_back (20 + turn % 30, 'l');
          made += 2;
          break;
        case 2:
          world.rows[turn] = std::vector<int> (turn % 30 + 1, 5);
          made += 2;
          break;
        case 3:
          world.shapes.push_back (turn % 16 < 8 ? static_cast<Shape *> (new Square)
                                                : static_cast<Shape *> (new Circle));
          if (world.shapes.size () > 1)
            world.shapes.back ()->neighbour = world.shapes[world.shapes.size () - 2];
          made++;
          break;
        default:
          {
            void *block = std::malloc (24 + turn * 40503u % 200);
            std::memset (block, 0, malloc_usable_size (block));
            world.blocks.push_back (block);
            made++;
            if (turn % 64 == 4 && world.blocks.size () > 8)
              {
                std::free (world.blocks[world.blocks.size () - 4]);
                world.blocks[world.blocks.size () - 4] = nullptr;
              }
          }
        }
      if (turn % 160 == 0)
        {
          leak (planted[number], turn / 160);
          made += 2;
        }
      if (turn % 1000000 == 0)
        world.mapped.push_back (std::calloc (1, 1 << 20));
    }
  scrub ();
  chunks += made;
}

} // namespace

// What a block held before must not look like a pointer to a leak: blocks begin as zeros.
void *
operator new (std::size_t size)
{
  void *mem = std::malloc (size);
  if (mem == nullptr)
    throw std::bad_alloc ();
  return std::memset (mem, 0, malloc_usable_size (mem));
}

void
operator delete (void *mem) noexcept
{
  std::free (mem);
}

void
operator delete (void *mem, std::size_t) noexcept
{
  std::free (mem);
}

extern "C" __attribute__ ((noinline)) void
heap_ready ()
{
  __asm__ volatile ("");
}

int
main (int argc, char **argv)
{
  if (argc < 4)
    {
      std::fprintf (stderr, "usage: planted MILLIONS THREADS REPORT [abort]\n");
      return 2;
    }
  std::uint64_t wanted = std::strtoull (argv[1], nullptr, 10) * 1000000;
  int threads = std::atoi (argv[2]);
  if (threads < 1 || threads > 64)
    return 2;
  if (threads == 1)
    fill (0, wanted);
  else
    {
      std::vector<std::thread> running;
      for (int number = 0; number < threads; number++)
        running.emplace_back (fill, number, wanted / threads);
      for (std::thread &one : running)
        one.join ();
    }
  scrub ();
  Planted all = {};
  for (const Planted &one : planted)
    {
      all.blocks += one.blocks;
      all.bytes += one.bytes;
      all.heads += one.heads;
      all.cycles += one.cycles;
    }
  static char text[256];
  int length = std::snprintf (text, sizeof text,
                              "{\"chunks\": %llu, \"leaked\": {\"count\": %llu, \"bytes\": %llu}, "
                              "\"heads\": %llu, \"cycles\": %llu}\n",
                              (unsigned long long) chunks, (unsigned long long) all.blocks,
                              (unsigned long long) all.bytes, (unsigned long long) all.heads,
                              (unsigned long long) all.cycles);
  std::FILE *report = std::fopen (argv[3], "w");
  if (report == nullptr || std::fwrite (text, 1, length, report) != std::size_t (length))
    return 2;
  std::fclose (report);
  heap_ready ();
  if (argc > 4)
    std::abort ();
  pause ();
}
