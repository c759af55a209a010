// Calls compiled kernels one after the other, without TVM's runtime.
//
//   call_kernels LIBRARY CALLS DATA OUT
//
// LIBRARY is a shared library of kernels. CALLS is text: per call "SYMBOL ARGUMENTS", then per
// argument "OFFSET CODE BITS DIMENSIONS SIZE...", where CODE is DLPack's of the element type. DATA
// holds all tensors at these offsets; OUT receives them after the last call.
//
// Every tensor lies in memory that begins at a multiple of 64 bytes and ends, to within that
// alignment, where a page without access begins; the bytes around it must keep their value. A kernel
// that crashes is the last one on stderr.

#include <dlfcn.h>
#include <dlpack/dlpack.h>
#include <sys/mman.h>
#include <tvm/ffi/c_api.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

extern "C" {

// What kernels call besides libc: an error's message, and (through pointers that whoever loads a
// library sets) memory and threads.
void TVMFFIErrorSetRaisedFromCStrParts(const char* kind, const char** parts, int32_t count) {
  std::fprintf(stderr, "%s: ", kind);
  for (int32_t i = 0; i < count; ++i) {
    if (parts[i] != nullptr) std::fputs(parts[i], stderr);
  }
  std::fputc('\n', stderr);
}
}

namespace {

constexpr std::size_t kAlignment = 64;
constexpr unsigned char kCanary = 0xA5;

void* alloc_workspace(int, int, uint64_t bytes, int, int) {
  return std::aligned_alloc(kAlignment, (bytes + kAlignment - 1) / kAlignment * kAlignment);
}

int free_workspace(int, int, void* memory) {
  std::free(memory);
  return 0;
}

struct Group {
  void* sync_handle;
  int32_t tasks;
};

int launch(int (*task)(int, Group*, void*), void* closure, int tasks) {
  Group group{nullptr, tasks > 0 ? tasks : 1};
  for (int32_t i = 0; i < group.tasks; ++i) {
    if (const int status = task(i, &group, closure)) return status;
  }
  return 0;
}

template <typename T>
void set_pointer(void* library, const char* name, T function) {
  if (void* place = dlsym(library, name)) *static_cast<T*>(place) = function;
}

void* load(const char* path) {
  void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) throw std::runtime_error(dlerror());
  set_pointer(library, "__TVMBackendAllocWorkspace", &alloc_workspace);
  set_pointer(library, "__TVMBackendFreeWorkspace", &free_workspace);
  set_pointer(library, "__TVMBackendParallelLaunch", &launch);
  return library;
}

// One argument in memory of its own, copied from the data and back.
class Argument {
 public:
  Argument(std::istream& calls, std::vector<char>& data) {
    std::size_t offset = 0;
    int code = 0;
    int bits = 0;
    std::size_t dimensions = 0;
    calls >> offset >> code >> bits >> dimensions;
    shape_.resize(dimensions);
    bytes_ = static_cast<std::size_t>(bits) / 8;
    for (int64_t& size : shape_) {
      calls >> size;
      bytes_ *= static_cast<std::size_t>(size);
    }
    if (!calls || offset + bytes_ > data.size()) throw std::runtime_error("malformed calls");
    source_ = data.data() + offset;
    const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    const std::size_t used = (bytes_ + kAlignment - 1) / kAlignment * kAlignment;
    pages_ = (used + page - 1) / page * page;
    mapped_ = pages_ + page;
    base_ = mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base_ == MAP_FAILED) throw std::runtime_error("out of memory");
    mprotect(static_cast<char*>(base_) + pages_, page, PROT_NONE);
    std::memset(base_, kCanary, pages_);
    tensor_.data = static_cast<char*>(base_) + pages_ - used;
    tensor_.device = {kDLCPU, 0};
    tensor_.ndim = static_cast<int32_t>(dimensions);
    tensor_.dtype = {static_cast<uint8_t>(code), static_cast<uint8_t>(bits), 1};
    tensor_.shape = shape_.data();
    tensor_.strides = nullptr;
    tensor_.byte_offset = 0;
    std::memcpy(tensor_.data, source_, bytes_);
  }
  Argument(const Argument&) = delete;
  Argument& operator=(const Argument&) = delete;
  ~Argument() { munmap(base_, mapped_); }

  TVMFFIAny any() {
    TVMFFIAny value{};
    value.type_index = kTVMFFIDLTensorPtr;
    value.v_ptr = &tensor_;
    return value;
  }
  // Whether the bytes around the tensor have kept their value.
  bool copy_back() const {
    std::memcpy(source_, tensor_.data, bytes_);
    const auto* first = static_cast<const unsigned char*>(base_);
    const auto* tensor = static_cast<const unsigned char*>(tensor_.data);
    const auto kept = [](unsigned char byte) { return byte == kCanary; };
    return std::all_of(first, tensor, kept) && std::all_of(tensor + bytes_, first + pages_, kept);
  }

 private:
  DLTensor tensor_{};
  std::vector<int64_t> shape_;
  std::size_t bytes_ = 0;
  char* source_ = nullptr;
  void* base_ = nullptr;
  std::size_t pages_ = 0;
  std::size_t mapped_ = 0;
};

void call(void* library, const std::string& symbol, std::size_t count, std::istream& calls,
          std::vector<char>& data) {
  const std::string name = "__tvm_ffi_" + symbol;
  const auto function = reinterpret_cast<TVMFFISafeCallType>(dlsym(library, name.c_str()));
  if (function == nullptr) throw std::runtime_error("no kernel " + symbol);
  std::vector<std::unique_ptr<Argument>> arguments;
  std::vector<TVMFFIAny> values;
  for (std::size_t i = 0; i < count; ++i) {
    arguments.push_back(std::make_unique<Argument>(calls, data));
    values.push_back(arguments.back()->any());
  }
  std::fprintf(stderr, "%s\n", symbol.c_str());
  TVMFFIAny result{};
  if (function(nullptr, values.data(), static_cast<int32_t>(count), &result) != 0) {
    throw std::runtime_error(symbol + " refuses its arguments");
  }
  for (const auto& argument : arguments) {
    if (!argument->copy_back()) throw std::runtime_error(symbol + " writes beside a tensor");
  }
}

void run(char** names) {
  void* library = load(names[1]);
  std::ifstream calls(names[2]);
  std::ifstream source(names[3], std::ios::binary);
  std::vector<char> data{std::istreambuf_iterator<char>(source), {}};
  if (!source) throw std::runtime_error(std::string(names[3]) + " cannot be read");
  std::string symbol;
  for (std::size_t count = 0; calls >> symbol >> count;) call(library, symbol, count, calls, data);
  if (!calls.eof()) throw std::runtime_error("malformed calls");
  std::ofstream out(names[4], std::ios::binary);
  out.write(data.data(), static_cast<std::streamsize>(data.size()));
  if (!out.flush()) throw std::runtime_error(std::string(names[4]) + " cannot be written");
}

}  // namespace

int main(int argc, char** argv) {
  try {
    if (argc != 5) throw std::runtime_error("usage: call_kernels LIBRARY CALLS DATA OUT");
    run(argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 2;
  }
  return 0;
}
