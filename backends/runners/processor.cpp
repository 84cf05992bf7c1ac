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

std::string siblings(int cpu) {
  std::ifstream file("/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/thread_siblings_list");
  std::string line;
  return std::getline(file, line) && !line.empty() ? line : std::to_string(cpu);
}

}  // namespace

void check_processor(const std::string &arch, const std::vector<std::string> &needs) {
  struct utsname about {};
  uname(&about);
  std::string here = about.machine;
  if (here == "amd64") here = "x86_64";
  if (here == "arm64") here = "aarch64";
  if (arch != here)
    throw Failure("the bundle was built for " + arch + " and this machine is " + here + ": build it for this one");
  const std::set<std::string> has = offered(here);
  std::string lacking;
  for (auto &need : needs)
    if (!has.empty() && !has.count(need)) lacking += (lacking.empty() ? "" : ", ") + need;
  if (!lacking.empty())
    throw Failure("the bundle was built for a processor with " + lacking +
                  ", which this one lacks: build it on this machine, or for it with --target");
#ifdef __x86_64__
  // Asked for once, for all threads: without permission the first tile kills the process.
  const long request_permission = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM, XTILEDATA
  if (std::find(needs.begin(), needs.end(), "amxtile") != needs.end() &&
      syscall(SYS_arch_prctl, request_permission, tile_data))
    throw Failure("the bundle multiplies in AMX's tiles, which the system does not let this process use "
                  "(arch_prctl refuses XTILEDATA): build it on this machine, or with --target x86-64-bf16");
#endif
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
