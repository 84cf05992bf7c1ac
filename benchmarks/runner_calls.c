/* Times calls of a bundle from C: reads a count from each line of its input, makes so many calls on ones, and prints
 * the nanoseconds that they took together.
 *
 *     runner_calls BUNDLE BATCH LENGTH
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "graphwright.h"

#define MOST 8

static int64_t now(void) {
  struct timespec found;
  clock_gettime(CLOCK_MONOTONIC, &found);
  return (int64_t)found.tv_sec * 1000000000 + found.tv_nsec;
}

int main(int count, char **words) {
  gw_bundle *bundle;
  gw_array inputs[MOST];
  char line[64];
  if (count < 4 || gw_load(words[1], 1, &bundle)) return fprintf(stderr, "%s\n", gw_error()), 1;
  int64_t shape[2] = {atoi(words[2]), atoi(words[3])};
  int64_t *ones = malloc((size_t)(shape[0] * shape[1]) * sizeof *ones);
  for (int64_t i = 0; i < shape[0] * shape[1]; ++i) ones[i] = 1;
  for (size_t i = 0; i < gw_input_count(bundle); ++i) {
    inputs[i] = *gw_input(bundle, i);
    inputs[i].shape = shape;
    inputs[i].data = ones;
  }
  while (fgets(line, sizeof line, stdin)) {
    const int64_t start = now();
    for (int calls = atoi(line); calls > 0; --calls) {
      gw_result *result;
      if (gw_run(bundle, inputs, gw_input_count(bundle), &result)) return fprintf(stderr, "%s\n", gw_error()), 1;
      gw_result_free(result);
    }
    printf("%lld\n", (long long)(now() - start));
    fflush(stdout);
  }
  gw_free(bundle);
  free(ones);
  return 0;
}
