// What the runner needs to know of a bundle: its manifest, and whether this processor will do.
#pragma once

#include <tvm/ffi/extra/json.h>
#include <tvm/ffi/string.h>

#include <algorithm>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#if defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace netcarve {

constexpr int kMostThreads = 1024;

struct Bundle {
  std::filesystem::path library;
  std::vector<std::int64_t> input_shape;  // [1, C, H, W], or [1, T] of tokens
  bool tokens;  // the input is int64, not float32
  std::vector<std::int64_t> output_shape;  // [1, classes] or [1, T, classes]
  std::string isa;
  int threads;  // that kernels divide their work over
  std::vector<std::string> cpu_flags;  // as in /proc/cpuinfo
};

namespace manifest {

namespace json = tvm::ffi::json;

constexpr std::int64_t kFormat = 2;

// A field of the manifest, or of an array in it, as a T; throws std::runtime_error otherwise.
template <typename T>
T typed(const std::optional<tvm::ffi::Any>& value, const std::string& name) {
  if (!value) throw std::runtime_error("corrupt: " + name + " is missing");
  std::optional<T> found = value->as<T>();
  if (!found) throw std::runtime_error("corrupt: " + name + " is of the wrong type");
  return *found;
}

template <typename T>
T field(const json::Object& manifest, const char* name) {
  return typed<T>(manifest.Get(tvm::ffi::String(name)), name);
}

// Sizes of one inference; `expected` says which for the message.
inline std::vector<std::int64_t> shape(const json::Object& manifest, const char* name,
                                       const std::string& expected) {
  std::vector<std::int64_t> sizes;
  for (const tvm::ffi::Any& size : field<json::Array>(manifest, name)) {
    sizes.push_back(typed<std::int64_t>(size, name));
  }
  if (sizes.size() < 2 || sizes.front() != 1 || *std::min_element(sizes.begin(), sizes.end()) < 1) {
    throw std::runtime_error("corrupt: " + std::string(name) + " is not " + expected);
  }
  return sizes;
}

inline Bundle parse(const std::string& text) {
  tvm::ffi::String problem;
  const tvm::ffi::Any parsed = json::Parse(text, &problem);
  if (!problem.empty()) throw std::runtime_error("corrupt: " + std::string(problem));
  const json::Object manifest = typed<json::Object>(parsed, "the manifest");
  if (field<std::int64_t>(manifest, "format") != kFormat) {
    throw std::runtime_error("not a bundle manifest of format " + std::to_string(kFormat));
  }
  Bundle bundle;
  bundle.library = std::string(field<tvm::ffi::String>(manifest, "library"));
  if (bundle.library.empty() || bundle.library != bundle.library.filename()) {
    throw std::runtime_error("corrupt: library is '" + bundle.library.string() +
                             "'; expected a file name");
  }
  bundle.input_shape = shape(manifest, "input_shape", "[1, C, H, W]");
  const std::string dtype{field<tvm::ffi::String>(manifest, "input_dtype")};
  if (dtype != "float32" && dtype != "int64") {
    throw std::runtime_error("corrupt: input_dtype is '" + dtype + "'; known: float32, int64");
  }
  bundle.tokens = dtype == "int64";
  bundle.output_shape = shape(manifest, "output_shape", "[1, C] or [1, T, C]");
  bundle.isa = std::string(field<tvm::ffi::String>(manifest, "isa"));
  const auto threads = field<std::int64_t>(manifest, "threads");
  if (threads < 1 || threads > kMostThreads) {
    throw std::runtime_error("corrupt: threads is " + std::to_string(threads));
  }
  bundle.threads = static_cast<int>(threads);
  for (const tvm::ffi::Any& flag : field<json::Array>(manifest, "cpu_flags")) {
    bundle.cpu_flags.emplace_back(typed<tvm::ffi::String>(flag, "cpu_flags"));
  }
  return bundle;
}

}  // namespace manifest

// The bundle in `folder`, by its manifest.json.
// Throws std::runtime_error, which names the file: it is missing, not JSON, of another format, or a
// field is missing or wrong.
inline Bundle read_bundle(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / "manifest.json";
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error(path.string() + ": no manifest can be read there");
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  try {
    Bundle bundle = manifest::parse(text);
    bundle.library = folder / bundle.library;
    return bundle;
  } catch (const std::exception& reason) {
    throw std::runtime_error(path.string() + ": " + reason.what());
  }
}

#if defined(__aarch64__)

// What Linux tells the process, by the names in /proc/cpuinfo: under emulation that file describes
// another processor.
inline std::set<std::string> cpu_flags() {
  static const std::pair<const char*, unsigned long> kNames[] = {
      {"fp", HWCAP_FP},           {"asimd", HWCAP_ASIMD},       {"aes", HWCAP_AES},
      {"pmull", HWCAP_PMULL},     {"sha1", HWCAP_SHA1},         {"sha2", HWCAP_SHA2},
      {"crc32", HWCAP_CRC32},     {"atomics", HWCAP_ATOMICS},   {"fphp", HWCAP_FPHP},
      {"asimdhp", HWCAP_ASIMDHP}, {"asimdrdm", HWCAP_ASIMDRDM}, {"lrcpc", HWCAP_LRCPC},
      {"asimddp", HWCAP_ASIMDDP}};
  std::set<std::string> have;
  for (const auto& [name, bit] : kNames) {
    if (getauxval(AT_HWCAP) & bit) have.insert(name);
  }
  return have;
}

#else

inline std::set<std::string> cpu_flags() {
  std::set<std::string> have;
  std::ifstream cpuinfo("/proc/cpuinfo");
  for (std::string line; have.empty() && std::getline(cpuinfo, line);) {
    if (line.rfind("flags", 0) != 0) continue;
    std::istringstream flags(line.substr(line.find(':') + 1));
    have.insert(std::istream_iterator<std::string>(flags), {});
  }
  return have;
}

#endif

// Makes sure that this processor has the instructions of the library.
// Throws std::runtime_error with those that it lacks.
inline void check_cpu(const Bundle& bundle) {
  const std::set<std::string> have = cpu_flags();
  std::string missing;
  for (const std::string& flag : bundle.cpu_flags) {
    if (have.count(flag) == 0) missing += (missing.empty() ? "" : ", ") + flag;
  }
  if (!missing.empty()) {
    throw std::runtime_error("this CPU lacks " + missing + "; the bundle was compiled for " +
                             bundle.isa);
  }
}

}  // namespace netcarve
