#include "processor.hpp"

#include <sched.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <set>
#include <sstream>

#include "failure.hpp"

namespace gw {
namespace {

// One spelling of LLVM's sse4.1 and Linux's sse4_1.
std::string plain(std::string name) {
  name.erase(std::remove_if(name.begin(), name.end(), [](char c) { return c == '-' || c == '_' || c == '.'; }),
             name.end());
  return name;
}

std::set<std::string> offered(const std::string &arch) {
  const std::string field = arch == "aarch64" ? "Features" : "flags";
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.compare(0, field.size(), field)) continue;
    const size_t colon = line.find(':');
    if (colon == std::string::npos) continue;
    std::istringstream words(line.substr(colon + 1));
    std::set<std::string> found;
    for (std::string word; words >> word;) found.insert(plain(word));
    return found;
  }
  return {};
}

std::string architecture() {
  struct utsname about {};
  uname(&about);
  const std::string here = about.machine;
  return here == "amd64" ? "x86_64" : here == "arm64" ? "aarch64" : here;
}

// Asked for once, for all threads: without permission the first tile kills the process.
bool tiles_permitted() {
#ifdef __x86_64__
  const long request_permission = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM, XTILEDATA
  return !syscall(SYS_arch_prctl, request_permission, tile_data);
#else
  return true;
#endif
}

// What of them the system permits.
std::set<std::string> usable(const std::string &arch) {
  std::set<std::string> found = offered(arch);
  if (!found.count("amxtile") || tiles_permitted()) return found;
  for (auto each = found.begin(); each != found.end();)
    each = each->compare(0, 3, "amx") ? std::next(each) : found.erase(each);
  return found;
}

// What of some instruction sets is not there; nothing where the system does not tell what is.
std::vector<std::string> lacks(const std::vector<std::string> &needs, const std::set<std::string> &has) {
  std::vector<std::string> found;
  for (auto &need : needs)
    if (!has.empty() && !has.count(need)) found.push_back(need);
  return found;
}

std::string joined(const std::vector<std::string> &words) {
  std::string found;
  for (auto &word : words) found += (found.empty() ? "" : ", ") + word;
  return found;
}

std::string siblings(int cpu) {
  std::ifstream file("/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/thread_siblings_list");
  std::string line;
  return std::getline(file, line) && !line.empty() ? line : std::to_string(cpu);
}

}  // namespace

void check_processor(const std::string &arch, const std::vector<std::string> &needs) {
  const std::string here = architecture();
  if (arch != here)
    throw Failure("the bundle was built for " + arch + " and this machine is " + here + ": build it for this one");
  const std::string lacking = joined(lacks(needs, offered(here)));
  if (!lacking.empty())
    throw Failure("the bundle was built for a processor with " + lacking +
                  ", which this one lacks: build it on this machine, or for it with --target");
  if (std::find(needs.begin(), needs.end(), "amxtile") != needs.end() && !tiles_permitted())
    throw Failure("the bundle multiplies in AMX's tiles, which the system does not let this process use "
                  "(arch_prctl refuses XTILEDATA): build it on this machine, or with --target x86-64-bf16");
}

int chosen_variant(const std::vector<IsaVariant> &variants) {
  const std::string here = architecture();
  const std::set<std::string> has = usable(here);
  int found = -1;
  for (size_t i = 0; i < variants.size(); ++i)
    if (variants[i].arch == here && lacks(variants[i].needs, has).empty() && (found < 0 || has.empty()))
      found = static_cast<int>(i);
  return found;
}

std::string no_variant(const std::string &folder, const std::vector<IsaVariant> &variants) {
  const std::string here = architecture();
  const std::set<std::string> offers = usable(here);
  std::set<std::string> has;
  std::string needs;
  for (auto &each : variants) {
    const std::string sets = joined(each.needs);
    needs += (needs.empty() ? "" : "; ") + each.target + " needs " + each.arch + " with " +
             (sets.empty() ? "nothing more" : sets);
    for (auto &name : each.needs)
      if (each.arch == here && offers.count(name)) has.insert(name);
  }
  const std::string told = joined({has.begin(), has.end()});
  return "no variant in " + folder + " runs on this processor, " + here + " with " +
         (told.empty() ? "none of these" : told) + ": " + needs +
         "; add a target that it can run to the list and build again";
}

std::vector<int> allowed_cpus() {
  cpu_set_t set;
  std::vector<int> found;
  if (sched_getaffinity(0, sizeof set, &set) == 0)
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu)
      if (CPU_ISSET(cpu, &set)) found.push_back(cpu);
  if (found.empty()) found.push_back(0);
  return found;
}

std::vector<int> picked_cpus(int threads) {
  std::set<std::string> taken;
  std::vector<int> firsts, others;
  for (int cpu : allowed_cpus()) (taken.insert(siblings(cpu)).second ? firsts : others).push_back(cpu);
  firsts.insert(firsts.end(), others.begin(), others.end());
  firsts.resize(std::min(firsts.size(), static_cast<size_t>(std::max(threads, 1))));
  std::sort(firsts.begin(), firsts.end());
  return firsts;
}

}  // namespace gw
