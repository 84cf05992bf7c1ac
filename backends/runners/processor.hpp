// Whether this processor can run compiled functions: an instruction that it lacks would kill the process.
#pragma once

#include <string>
#include <vector>

#include "manifest.hpp"

namespace gw {

// Throws Failure naming what the processor lacks, or the system refuses. The rules of backends/processor.py.
void check_processor(const std::string &arch, const std::vector<std::string> &needs);

// The number of the variant that runs here, or -1; why none does. The rules of backends/bundles/isa.py.
int chosen_variant(const std::vector<IsaVariant> &variants);
std::string no_variant(const std::string &folder, const std::vector<IsaVariant> &variants);

// Logical CPUs of this process: all, and so many as threads, one a core as far as they go.
std::vector<int> allowed_cpus();
std::vector<int> picked_cpus(int threads);

}  // namespace gw
