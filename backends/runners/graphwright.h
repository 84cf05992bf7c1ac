/* Runs bundles that graphwright wrote, from C and whatever calls C. No Python.
 *
 *     gw_bundle *bundle;
 *     if (gw_load("minilm-balanced", 0, &bundle)) { fprintf(stderr, "%s\n", gw_error()); exit(1); }
 *     gw_array inputs[2] = {{"input_ids", "int64", shape, 2, ids}, {"attention_mask", "int64", shape, 2, mask}};
 *     gw_result *result;
 *     if (gw_run(bundle, inputs, 2, &result)) ...
 *     const float *embedding = gw_result_array(result, 0)->data;
 *     gw_result_free(result);
 *     gw_free(bundle);
 *
 * Functions that return an int return 0, or 1 where they fail: then what they should have made is NULL, and
 * gw_error() says why in one sentence. ONNX Runtime or TVM's runtime is loaded with the first bundle that needs
 * it: from the path in GRAPHWRIGHT_ONNXRUNTIME or the directory in GRAPHWRIGHT_TVM, else from beside this
 * library, else from where the system looks.
 */
#ifndef GRAPHWRIGHT_H
#define GRAPHWRIGHT_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define GW_API __attribute__((visibility("default")))
#else
#define GW_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* A loaded bundle; several threads may run it at once. */
typedef struct gw_bundle gw_bundle;

/* What a call gave. */
typedef struct gw_result gw_result;

/* An array in C order, without gaps.
 * dtype: NumPy's name of it: "bool", "int8" to "int64", "uint8" to "uint64", "float16" to "float64", "bfloat16".
 * shape: rank sizes. */
typedef struct {
  const char *name;
  const char *dtype;
  const int64_t *shape;
  size_t rank;
  const void *data;
} gw_array;

/* Checks the manifest and the sha256 of every file, and only then loads a bundle.
 * threads: that a call runs on; 0 takes what the bundle was measured with, as far as this process has CPUs. */
GW_API int gw_load(const char *directory, int threads, gw_bundle **bundle);

/* Of a bundle of variants for several instruction sets, the target of the one that was chosen for this processor;
 * else "". */
GW_API const char *gw_variant(const gw_bundle *bundle);

/* Inputs and outputs in their order; data is NULL. In shape, -1 is a size that each call chooses; an output has
 * neither dtype nor shape: its gw_result_array has. */
GW_API size_t gw_input_count(const gw_bundle *bundle);
GW_API const gw_array *gw_input(const gw_bundle *bundle, size_t number);
GW_API size_t gw_output_count(const gw_bundle *bundle);
GW_API const gw_array *gw_output(const gw_bundle *bundle, size_t number);

/* Runs a call. inputs: one array for each input, of any order; a memory that is left out is empty. They are only
 * read, and may go once it returns. */
GW_API int gw_run(gw_bundle *bundle, const gw_array *inputs, size_t count, gw_result **result);

/* The outputs, in the bundle's order; they live as long as the result. */
GW_API size_t gw_result_count(const gw_result *result);
GW_API const gw_array *gw_result_array(const gw_result *result, size_t number);

/* Both take NULL. Results may outlive their bundle. */
GW_API void gw_result_free(gw_result *result);
GW_API void gw_free(gw_bundle *bundle);

/* Why the last call of this thread failed, in UTF-8; "" where none has. */
GW_API const char *gw_error(void);

#ifdef __cplusplus
}
#endif

#endif
