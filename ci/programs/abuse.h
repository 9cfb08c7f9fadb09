/* What the parts of the random system-call test share; abuse.c says what it is. */
#ifndef ABUSE_H
#define ABUSE_H
#define _GNU_SOURCE
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>

enum { PAGE = 4096, AREA = 16 * PAGE, FDS = 64, MEMBERS = 8 };

/* Memory of a worker process: one part of each kind that the kernel's copies can meet. */
struct arena {
  char *good;     /* private; what follows its end is unmapped */
  char *readonly;
  char *none;     /* PROT_NONE */
  char *shared;   /* shared with the other workers, who write to it all the time */
  char *file;     /* a shared mapping of a file that is cut off and grown again meanwhile */
  char *racing;   /* unmapped, mapped, protected and moved meanwhile */
  char *stacks;   /* for clone */
};

/* What the workers of a round have in common; in shared memory. */
struct common {
  volatile long calls;
  volatile int members[MEMBERS]; /* process ids of the workers */
};

/* The descriptors that the workers of a round inherit. */
struct descriptors {
  int list[FDS];
  int count;
  int file; /* behind arena.file */
};

extern struct arena arena;
extern struct common *common;
extern struct descriptors descriptors;
extern __thread uint64_t random_state;
/* Where a worker's own access to racing memory goes on after a fault. */
extern __thread sigjmp_buf *fault;

static inline uint64_t next(void) {
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  random_state ^= random_state << 17;
  return random_state * 2685821657736338717ull;
}
static inline uint64_t below(uint64_t n) { return (next() >> 11) % n; }
static inline int one_in(uint64_t n) { return below(n) == 0; }
#define PICK(list) ((list)[below(sizeof(list) / sizeof *(list))])

/* A value for one letter of a call's shape (shapes.h); `call` is for arguments that depend on it. */
long argument(char letter);
/* A value without any shape: noise, edges, pointers. */
long noise(void);
/* Opens one of each kind of descriptor. */
void open_descriptors(void);
#endif
