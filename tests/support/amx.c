// AMX for a processor without: a handler of SIGILL that carries its instructions out, as Intel's Architecture
// Instruction Set Extensions define them, chapter 3. One state a thread, in a table: a handler may not allocate.
#define _GNU_SOURCE
#include <immintrin.h>
#include <math.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

enum { TILES = 8, ROWS = 16, BYTES = 64, THREADS = 256 };
enum { NONE, P66, PF3, PF2 };

typedef struct {
  long thread;
  int configured;
  uint16_t bytes[TILES];
  uint8_t rows[TILES];
  uint8_t tile[TILES][ROWS][BYTES];
} State;

static State states[THREADS];
static struct sigaction before;
static long done;      // instructions carried out
static long released;  // threads that gave their tiles back

static State* mine(void) {
  const long thread = syscall(SYS_gettid);
  for (int i = 0; i < THREADS; ++i) {
    long expected = 0;
    if (states[i].thread == thread) return &states[i];
    if (__atomic_compare_exchange_n(&states[i].thread, &expected, thread, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
      return &states[i];
  }
  return NULL;
}

static uint64_t reg(ucontext_t* context, int number) {
  static const int names[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
  return (uint64_t)context->uc_mcontext.gregs[names[number]];
}

// Reads ModRM's memory operand; the index goes to stride. Returns where the instruction ends.
static const uint8_t* address(ucontext_t* context, const uint8_t* at, int x, int b, uint64_t* place, uint64_t* stride) {
  const int mode = at[0] >> 6, low = at[0] & 7;
  uint64_t base = 0, index = 0;
  int32_t wide = 0;
  int bare = mode == 0 && low == 5;  // relative to the next instruction
  ++at;
  if (low == 4) {
    const int sib = *at++, i = ((sib >> 3) & 7) | x << 3;
    if (i != 4) index = reg(context, i) << (sib >> 6);
    if (mode == 0 && (sib & 7) == 5) memcpy(&wide, at, 4), at += 4;
    else base = reg(context, (sib & 7) | b << 3);
  } else if (!bare) {
    base = reg(context, low | b << 3);
  }
  if (mode == 1) wide = (int8_t)*at++;
  if (mode == 2 || bare) memcpy(&wide, at, 4), at += 4;
  if (bare) base = (uint64_t)at;
  *place = base + (int64_t)wide;
  *stride = index;
  return at;
}

static int configure(State* state, const uint8_t* from) {
  if (from[0] != 1 || from[1]) return 0;
  for (int i = 2; i < 16; ++i)
    if (from[i]) return 0;
  memset(state->tile, 0, sizeof state->tile);
  for (int t = 0; t < TILES; ++t) {
    memcpy(&state->bytes[t], from + 16 + 2 * t, 2);
    state->rows[t] = from[48 + t];
    if (state->bytes[t] > BYTES || state->rows[t] > ROWS || !state->bytes[t] != !state->rows[t]) return 0;
  }
  return state->configured = 1;
}

static float wide(uint16_t half) {
  const uint32_t bits = (uint32_t)half << 16;
  float value;
  memcpy(&value, &bits, 4);
  return value;
}

static int multiply(State* state, int d, int a, int b, int opcode, int prefix) {
  const int rows = state->rows[d], columns = state->bytes[d] / 4, steps = state->bytes[a] / 4;
  if (!rows || rows != state->rows[a] || state->bytes[d] != state->bytes[b] || state->rows[b] != steps) return 0;
  if (d == a || d == b || a == b || (state->bytes[d] | state->bytes[a]) % 4) return 0;
  for (int m = 0; m < rows; ++m)
    for (int n = 0; n < columns; ++n) {
      if (opcode == 0x5C) {
        float halves[2] = {0, 0}, sum;
        for (int k = 0; k < steps; ++k)
          for (int half = 0; half < 2; ++half) {
            uint16_t x, w;
            memcpy(&x, &state->tile[a][m][4 * k + 2 * half], 2);
            memcpy(&w, &state->tile[b][k][4 * n + 2 * half], 2);
            halves[half] = fmaf(wide(x), wide(w), halves[half]);
          }
        memcpy(&sum, &state->tile[d][m][4 * n], 4);
        sum += halves[0] + halves[1];
        memcpy(&state->tile[d][m][4 * n], &sum, 4);
      } else {
        int32_t sum;
        memcpy(&sum, &state->tile[d][m][4 * n], 4);
        for (int k = 0; k < 4 * steps; ++k)
          sum += state->tile[a][m][k] * (int8_t)state->tile[b][k / 4][4 * n + k % 4];
        memcpy(&state->tile[d][m][4 * n], &sum, 4);
      }
    }
  return opcode == 0x5C ? prefix == PF3 : prefix == P66;
}

// The instruction at the place of the fault; 0 where it is none of these, or one that faults there too.
static int carried_out(ucontext_t* context) {
  const uint8_t* at = (const uint8_t*)context->uc_mcontext.gregs[REG_RIP];
  if (at[0] != 0xC4 || (at[1] & 0x1F) != 2 || at[2] & 0x84) return 0;  // VEX.128.0F38.W0
  const int x = !(at[1] & 0x40), b = !(at[1] & 0x20), prefix = at[2] & 3, other = (~at[2] >> 3) & 15;
  const int opcode = at[3], memory = at[4] >> 6 != 3, number = (at[4] >> 3) & 7;
  State* state = mine();
  const uint8_t* end = at + 5;
  uint64_t place = 0, stride = 0;
  if (!state) return 0;
  if (memory) end = address(context, at + 4, x, b, &place, &stride);
  if (opcode == 0x49 && prefix == NONE && memory) {
    if (!configure(state, (const uint8_t*)place)) return 0;
  } else if (!state->configured) {
    return 0;
  } else if (opcode == 0x49 && prefix == NONE && at[4] == 0xC0) {
    state->configured = 0;
    __atomic_fetch_add(&released, 1, __ATOMIC_SEQ_CST);
  } else if (opcode == 0x49 && prefix == PF2 && !memory) {
    memset(state->tile[number], 0, sizeof state->tile[number]);
  } else if (opcode == 0x4B && memory && (prefix == PF2 || prefix == PF3) && state->rows[number]) {
    if (prefix == PF2) memset(state->tile[number], 0, sizeof state->tile[number]);
    for (int row = 0; row < state->rows[number]; ++row) {
      uint8_t* there = (uint8_t*)(place + row * stride);
      if (prefix == PF2) memcpy(state->tile[number][row], there, state->bytes[number]);
      else memcpy(there, state->tile[number][row], state->bytes[number]);
    }
  } else if ((opcode == 0x5E || opcode == 0x5C) && !memory) {
    if (!multiply(state, number, at[4] & 7, other, opcode, prefix)) return 0;
  } else {
    return 0;
  }
  context->uc_mcontext.gregs[REG_RIP] = (greg_t)end;
  __atomic_fetch_add(&done, 1, __ATOMIC_SEQ_CST);
  return 1;
}

static void handle(int number, siginfo_t* info, void* context) {
  (void)number, (void)info;
  _mm_setcsr(0x9FC0);  // round to nearest, subnormal numbers are zeros; the return from the signal restores it
  if (!carried_out(context)) sigaction(SIGILL, &before, NULL);  // and the instruction faults again
}

int amx_begin(void) {
  struct sigaction action = {0};
  action.sa_sigaction = handle;
  action.sa_flags = SA_SIGINFO;
  done = released = 0;
  return sigaction(SIGILL, &action, &before);
}

int amx_end(void) { return sigaction(SIGILL, &before, NULL); }

long amx_done(void) { return done; }

long amx_released(void) { return released; }

// Threads whose tiles are still configured.
int amx_held(void) {
  int count = 0;
  for (int i = 0; i < THREADS; ++i) count += states[i].configured;
  return count;
}
