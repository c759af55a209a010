// A compiled subnet, loaded through TVM's C++ runtime.
#pragma once

#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/extra/module.h>
#include <tvm/ffi/function.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <filesystem>
#include <functional>
#include <new>
#include <numeric>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "bundle.h"
#include "npy.h"

namespace netcarve {

class Model {
 public:
  // Loading executes the library's code: load only what comes from a source you trust.
  // Throws std::runtime_error, which names the library: it cannot be loaded, or is no compiled
  // subnet.
  explicit Model(const Bundle& bundle)
      : main_(load(bundle.library)),
        input_(Tensor::FromNDAlloc(AlignedMemory(),
                                   {bundle.input_shape.data(), bundle.input_shape.size()},
                                   bundle.tokens ? kInt64 : kFloat32, DLDevice{kDLCPU, 0})),
        output_shape_(bundle.output_shape) {}

  // Number of elements of one input.
  std::size_t input_size() const { return static_cast<std::size_t>(input_.numel()); }

  // `values` are of the bundle's element type.
  template <typename T>
  void set_input(const T* values) {
    std::memcpy(input_.data_ptr(), values, input_size() * sizeof(T));
  }

  // The result of the input, float32: the values of the bundle's output shape, row-major.
  // Throws std::runtime_error: the library refuses the input, or returns something else.
  tvm::ffi::Tensor run() const {
    const std::optional<Tensor> result = call().as<Tensor>();
    const std::int64_t expected = std::accumulate(output_shape_.begin(), output_shape_.end(),
                                                  std::int64_t{1}, std::multiplies<>());
    if (!result || result->dtype() != kFloat32 || result->numel() != expected ||
        !result->IsContiguous()) {
      throw std::runtime_error("the library returns no float32 values of shape " +
                               shape_text(output_shape_));
    }
    return *result;
  }

  const std::vector<std::int64_t>& output_shape() const { return output_shape_; }

 private:
  using Function = tvm::ffi::Function;
  using Module = tvm::ffi::Module;
  using Tensor = tvm::ffi::Tensor;

  static constexpr int kPooledAllocator = 2;
  static constexpr DLDataType kFloat32{kDLFloat, 32, 1}, kInt64{kDLInt, 64, 1};

  struct AlignedMemory {
    static constexpr std::size_t kBytes = 64;  // what TVM's own allocators give to kernels

    void AllocData(DLTensor* tensor) {
      const std::size_t bytes = tvm::ffi::GetDataSize(*tensor);
      tensor->data = std::aligned_alloc(kBytes, (bytes + kBytes - 1) / kBytes * kBytes);
      if (tensor->data == nullptr) throw std::bad_alloc();
    }
    void FreeData(DLTensor* tensor) { std::free(tensor->data); }
  };

  static Function load(const std::filesystem::path& library) {
    try {
      const Module executable = Module::LoadFromFile(library.string());
      const Module machine = function(executable, "vm_load_executable")().cast<Module>();
      function(machine, "vm_initialization")(static_cast<int>(kDLCPU), 0, kPooledAllocator);
      // It keeps the machine, and that the library.
      return function(machine, "main");
    } catch (const std::exception& error) {
      throw std::runtime_error(library.string() + ": no library of a compiled subnet: " +
                               first_line(error));
    }
  }

  static Function function(const Module& module, const char* name) {
    const auto found = module->GetFunction(name);
    if (!found.has_value()) throw std::runtime_error(std::string("it has no function ") + name);
    return found.value();
  }

  tvm::ffi::Any call() const {
    try {
      return main_(input_);
    } catch (const std::exception& error) {
      const std::vector<std::int64_t> shape(input_.shape().begin(), input_.shape().end());
      throw std::runtime_error("the library refuses inputs of shape " + shape_text(shape) + ": " +
                               first_line(error));
    }
  }

  static std::string first_line(const std::exception& error) {
    const std::string text = error.what();
    return text.substr(0, text.find('\n'));
  }

  Function main_;
  Tensor input_;
  std::vector<std::int64_t> output_shape_;
};

}  // namespace netcarve
