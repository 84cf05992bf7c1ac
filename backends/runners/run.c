/* Runs a bundle on arrays in NumPy's .npy files: an example of graphwright.h, and a program to run as it is.
 *
 *     graphwright-run BUNDLE                                       what it takes and gives
 *     graphwright-run BUNDLE input_ids=ids.npy mask=mask.npy OUT   writes OUT/NAME.npy for each output
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "graphwright.h"

#define MOST 64

/* NumPy's codes of dtypes, little-endian. */
static const struct { const char *name, *code; size_t bytes; } TYPES[] = {
    {"bool", "|b1", 1},    {"int8", "|i1", 1},    {"int16", "<i2", 2},   {"int32", "<i4", 4},
    {"int64", "<i8", 8},   {"uint8", "|u1", 1},   {"uint16", "<u2", 2},  {"uint32", "<u4", 4},
    {"uint64", "<u8", 8},  {"float16", "<f2", 2}, {"float32", "<f4", 4}, {"float64", "<f8", 8}};
#define TYPE_COUNT (sizeof TYPES / sizeof *TYPES)

static int fail(const char *name, const char *why) {
  fprintf(stderr, "graphwright-run: %s%s%s\n", name, *name ? ": " : "", why);
  return 1;
}

/* The value behind a key of a .npy header: 'descr': '<i8', 'fortran_order': False, 'shape': (2, 3). */
static const char *value_of(const char *header, const char *key) {
  const char *found = strstr(header, key);
  if (!found || !(found = strchr(found, ':'))) return "";
  while (*++found == ' ') {}
  return found;
}

/* Reads version 1.0 to 3.0; the array's shape and data are malloc'd. Returns NULL, or why it failed. */
static const char *read_npy(const char *path, gw_array *array) {
  FILE *file = fopen(path, "rb");
  unsigned char head[12];
  char header[4097];
  int64_t *shape = malloc(MOST * sizeof *shape);
  const char *why = "it is no .npy file that holds numbers in C order";
  char *data = NULL;
  if (!file || !shape) goto done;
  if (fread(head, 1, 10, file) != 10 || memcmp(head, "\x93NUMPY", 6)) goto done;
  size_t length = head[8] | (size_t)head[9] << 8;
  if (head[6] > 1) {
    if (fread(head + 10, 1, 2, file) != 2) goto done;
    length |= (size_t)head[10] << 16 | (size_t)head[11] << 24;
  }
  if (length >= sizeof header || fread(header, 1, length, file) != length) goto done;
  header[length] = 0;
  const char *descr = value_of(header, "'descr'"), *sizes = value_of(header, "'shape'");
  if (strncmp(value_of(header, "'fortran_order'"), "False", 5) || *descr != '\'' || *sizes != '(') goto done;
  size_t type = 0, bytes;
  while (type < TYPE_COUNT && strncmp(descr + 1, TYPES[type].code, 3)) ++type;
  if (type == TYPE_COUNT) goto done;
  array->rank = 0, bytes = TYPES[type].bytes;
  for (const char *at = sizes + 1; *at && *at != ')';) {
    char *end;
    errno = 0;
    const long long size = strtoll(at, &end, 10);
    if (end == at || errno || size < 0 || array->rank == MOST) goto done;
    if (size && bytes > (size_t)1 << 46) goto done;
    if (size && (size_t)size > ((size_t)1 << 46) / bytes) goto done;
    shape[array->rank++] = size, bytes *= (size_t)size;
    at = end + strspn(end, ", ");
  }
  why = "its data is cut short";
  data = malloc(bytes ? bytes : 1);
  if (!data || fread(data, 1, bytes, file) != bytes) goto done;
  array->dtype = TYPES[type].name, array->shape = shape, array->data = data;
  why = NULL;
done:
  if (!file) why = strerror(errno);
  if (why) free(shape), free(data);
  if (file) fclose(file);
  return why;
}

static const char *write_npy(const char *folder, const gw_array *array) {
  char path[4096], header[2048];
  size_t type = 0, bytes;
  while (type < TYPE_COUNT && strcmp(array->dtype, TYPES[type].name)) ++type;
  if (type == TYPE_COUNT) return "NumPy has no dtype of its own for it";
  if (snprintf(path, sizeof path, "%s/%s.npy", folder, array->name) >= (int)sizeof path) return "its path is too long";
  int used = snprintf(header, sizeof header, "{'descr': '%s', 'fortran_order': False, 'shape': (", TYPES[type].code);
  bytes = TYPES[type].bytes;
  for (size_t i = 0; i < array->rank && i < MOST; ++i) {
    used += snprintf(header + used, sizeof header - (size_t)used, "%lld,", (long long)array->shape[i]);
    bytes *= (size_t)array->shape[i];
  }
  used += snprintf(header + used, sizeof header - (size_t)used, "), }");
  while ((10 + used + 1) % 64) header[used++] = ' ';
  header[used++] = '\n';
  FILE *file = fopen(path, "wb");
  if (!file) return strerror(errno);
  const unsigned char head[10] = {0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, used & 255, used >> 8};
  int wrong = fwrite(head, 1, 10, file) != 10 || fwrite(header, 1, (size_t)used, file) != (size_t)used ||
              fwrite(array->data, 1, bytes, file) != bytes;
  wrong |= fclose(file);
  return wrong ? "it can't be written whole" : NULL;
}

static void describe(const char *what, const gw_array *array) {
  printf("%s %s", what, array->name);
  if (array->dtype) {
    printf(" %s [", array->dtype);
    for (size_t i = 0; i < array->rank; ++i) {
      if (array->shape[i] < 0) printf(i ? ", ?" : "?");
      else printf(i ? ", %lld" : "%lld", (long long)array->shape[i]);
    }
    printf("]");
  }
  printf("\n");
}

static int run(gw_bundle *bundle, int count, char **given, const char *out) {
  gw_array inputs[MOST];
  gw_result *result = NULL;
  int status = 0, read = 0;
  if (count > MOST) return fail("", "too many inputs");
  for (; !status && read < count; ++read) {
    char *path = strchr(given[read], '=');
    if (!path) { status = fail(given[read], "write INPUT=FILE.npy"); break; }
    *path++ = 0;
    const char *why = read_npy(path, &inputs[read]);
    if (why) { status = fail(path, why); break; }
    inputs[read].name = given[read];
  }
  if (!status && gw_run(bundle, inputs, (size_t)count, &result)) status = fail("", gw_error());
  if (!status && mkdir(out, 0777) && errno != EEXIST) status = fail(out, strerror(errno));
  for (size_t i = 0; !status && i < gw_result_count(result); ++i) {
    const char *why = write_npy(out, gw_result_array(result, i));
    if (why) status = fail(gw_result_array(result, i)->name, why);
  }
  gw_result_free(result);
  for (int i = 0; i < read; ++i) free((void *)inputs[i].shape), free((void *)inputs[i].data);
  return status;
}

int main(int count, char **words) {
  gw_bundle *bundle;
  if (count < 2 || count == 3) return fail("", "usage: graphwright-run BUNDLE [INPUT=FILE.npy ... OUT]") + 1;
  if (gw_load(words[1], 0, &bundle)) return fail("", gw_error());
  int status = 0;
  if (count == 2) {
    if (*gw_variant(bundle)) printf("for %s\n", gw_variant(bundle));
    for (size_t i = 0; i < gw_input_count(bundle); ++i) describe("takes", gw_input(bundle, i));
    for (size_t i = 0; i < gw_output_count(bundle); ++i) describe("gives", gw_output(bundle, i));
  } else {
    status = run(bundle, count - 3, words + 2, words[count - 1]);
  }
  gw_free(bundle);
  return status;
}
