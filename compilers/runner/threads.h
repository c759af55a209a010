// Threads of TVM's runtime, over which kernels divide their work.
#pragma once

#include <sched.h>
#include <tvm/ffi/container/array.h>
#include <tvm/ffi/function.h>
#include <tvm/ffi/string.h>

#include <cstdlib>
#include <string>

namespace netcarve {

// TVM's affinity mode that binds each of its threads to the processor of that index.
constexpr int kOneCorePerThread = -2;

// Lets TVM use so many threads, of which this one is the first. To be called before it runs a
// kernel. Where this process may use exactly as many processors (see taskset), each thread is bound
// to one of them: otherwise they may share one, which costs all that they gain.
inline void use_threads(int threads) {
  setenv("TVM_NUM_THREADS", std::to_string(threads).c_str(), 1);
  // TVM would bind its threads to processors of its own choice.
  setenv("TVM_BIND_THREADS", "0", 1);
  cpu_set_t allowed;
  if (threads == 1 || sched_getaffinity(0, sizeof(allowed), &allowed) != 0 ||
      CPU_COUNT(&allowed) != threads) {
    return;
  }
  tvm::ffi::Array<tvm::ffi::String> cpus;
  int first = -1;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &allowed)) continue;
    if (first < 0) first = cpu;
    cpus.push_back(std::to_string(cpu));
  }
  setenv("TVM_BIND_THREADS", "1", 1);
  tvm::ffi::Function::GetGlobalRequired("runtime.config_threadpool")(kOneCorePerThread, threads,
                                                                     cpus);
  // TVM lets the calling thread move.
  CPU_ZERO(&allowed);
  CPU_SET(first, &allowed);
  sched_setaffinity(0, sizeof(allowed), &allowed);
}

}  // namespace netcarve
