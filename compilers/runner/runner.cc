// Runs a bundle's compiled subnet without Python: inputs from a .npy file, logits to another.
//
// build_runner.sh builds it and puts what it needs beside it. Run it with --help for its options.
// Exit codes: 0 done; 2 something that the user can mend, which the message on stderr names.

#include <getopt.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <vector>

#include "bundle.h"
#include "model.h"
#include "npy.h"
#include "threads.h"

namespace {

namespace fs = std::filesystem;

constexpr const char* kUsage =
    "usage: %s --input X.npy [--output Y.npy] [--repeats N] [--threads N] [--bundle DIR]\n"
    "\n"
    "  --input X.npy   inputs, float32 [n, channels, size, size] or int64 [n, tokens], or one\n"
    "                  without the first axis\n"
    "  --output Y.npy  write the logits, float32 [n, classes] or [n, tokens, classes]; without it\n"
    "                  the classes are printed\n"
    "  --repeats N     then measure the first input's latency N times and print the median\n"
    "  --threads N     threads of the runtime; default those that the bundle was compiled for\n"
    "  --bundle DIR    folder of manifest.json and the library; default the executable's\n";
using netcarve::kMostThreads;

constexpr int kUserError = 2;
constexpr int kMostRepeats = 10'000'000;
constexpr int kWarmUp = 10;

struct Options {
  fs::path input;
  fs::path output;
  fs::path bundle;
  int repeats = 0;
  int threads = 0;  // the bundle's
};

int whole_number(const std::string& option, const std::string& text, int most) {
  int value = 0;
  const char* end = text.data() + text.size();
  const auto [parsed, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || parsed != end || value < 1 || value > most) {
    throw std::runtime_error(option + " is '" + text + "'; allowed: 1 to " + std::to_string(most));
  }
  return value;
}

Options parse_options(int argc, char** argv) {
  static const option kOptions[] = {
      {"input", required_argument, nullptr, 'i'},   {"output", required_argument, nullptr, 'o'},
      {"repeats", required_argument, nullptr, 'r'}, {"threads", required_argument, nullptr, 't'},
      {"bundle", required_argument, nullptr, 'b'},  {"help", no_argument, nullptr, 'h'},
      {nullptr, 0, nullptr, 0}};
  Options options;
  for (int found; (found = getopt_long(argc, argv, "h", kOptions, nullptr)) != -1;) {
    switch (found) {
      case 'i': options.input = optarg; break;
      case 'o': options.output = optarg; break;
      case 'b': options.bundle = optarg; break;
      case 'r': options.repeats = whole_number("--repeats", optarg, kMostRepeats); break;
      case 't': options.threads = whole_number("--threads", optarg, kMostThreads); break;
      case 'h': std::printf(kUsage, argv[0]); std::exit(EXIT_SUCCESS);
      default: std::exit(kUserError);  // getopt_long has said why
    }
  }
  if (optind < argc) throw std::runtime_error(std::string("unexpected argument ") + argv[optind]);
  if (options.input.empty()) throw std::runtime_error("--input is missing; see --help");
  if (options.bundle.empty()) options.bundle = fs::canonical("/proc/self/exe").parent_path();
  return options;
}

// Inputs of the bundle's shape: [n, C, H, W], or one as [C, H, W].
template <typename T>
netcarve::Array<T> read_inputs(const fs::path& path, const std::vector<std::int64_t>& one) {
  netcarve::Array<T> x = netcarve::read_npy<T>(path);
  const std::string found = netcarve::shape_text(x.shape);
  if (std::equal(x.shape.begin(), x.shape.end(), one.begin() + 1, one.end())) {
    x.shape.insert(x.shape.begin(), 1);
  }
  if (x.shape.size() != one.size() || x.shape.front() == 0 ||
      !std::equal(x.shape.begin() + 1, x.shape.end(), one.begin() + 1)) {
    std::string expected = "n";
    for (auto size = one.begin() + 1; size != one.end(); ++size) {
      expected += ", " + std::to_string(*size);
    }
    const std::string dtype{netcarve::DType<T>::kName};
    throw std::runtime_error(path.string() + ": " + dtype + " " + found + "; expected " + dtype +
                             " [" + expected + "]");
  }
  return x;
}

// Logits [n, ..., classes] of n inputs, one inference each.
template <typename T>
netcarve::Array<float> infer(netcarve::Model& model, const netcarve::Array<T>& x) {
  netcarve::Array<float> logits{model.output_shape(), {}};
  logits.shape.front() = x.shape.front();
  for (std::int64_t i = 0; i < x.shape.front(); ++i) {
    model.set_input(x.values.data() + static_cast<std::size_t>(i) * model.input_size());
    const tvm::ffi::Tensor one = model.run();
    const auto* values = static_cast<const float*>(one.data_ptr());
    logits.values.insert(logits.values.end(), values, values + one.numel());
  }
  return logits;
}

// Value below which a fraction of the sorted values lies; linear between two of them.
double quantile(const std::vector<double>& sorted, double fraction) {
  const double place = fraction * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<std::size_t>(place);
  const std::size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (place - static_cast<double>(below)) * (sorted[above] - sorted[below]);
}

void measure(const netcarve::Model& model, int repeats, int threads) {
  using Clock = std::chrono::steady_clock;
  for (int i = 0; i < kWarmUp; ++i) model.run();
  std::vector<double> ms(static_cast<std::size_t>(repeats));
  for (double& one : ms) {
    const Clock::time_point start = Clock::now();
    model.run();
    one = std::chrono::duration<double, std::milli>(Clock::now() - start).count();
  }
  std::sort(ms.begin(), ms.end());
  std::printf("measured latency: median %.4f ms, p10 to p90: %.4f to %.4f ms, ", quantile(ms, 0.5),
              quantile(ms, 0.1), quantile(ms, 0.9));
  std::printf("repeats: %d, threads: %d\n", repeats, threads);
}

// The class of every row of logits; an input with several rows is a sequence of tokens.
void print_classes(const netcarve::Array<float>& logits) {
  const auto classes = static_cast<std::size_t>(logits.shape.back());
  const std::size_t all = logits.values.size() / classes;
  const std::size_t rows = all / static_cast<std::size_t>(logits.shape.front());
  for (std::size_t i = 0; i < all; ++i) {
    const float* row = logits.values.data() + i * classes;
    const float* best = std::max_element(row, row + classes);
    std::printf("input %zu", i / rows);
    if (rows > 1) std::printf(", token %zu", i % rows);
    std::printf(": class %td, logit %.4f\n", best - row, *best);
  }
}

// With inputs of T, which are what the bundle takes.
template <typename T>
void run(const Options& options, const netcarve::Bundle& bundle) {
  const netcarve::Array<T> x = read_inputs<T>(options.input, bundle.input_shape);
  const int threads = options.threads > 0 ? options.threads : bundle.threads;
  netcarve::use_threads(threads);
  netcarve::Model model(bundle);
  const netcarve::Array<float> logits = infer(model, x);
  if (options.output.empty()) {
    print_classes(logits);
  } else {
    netcarve::write_npy(options.output, logits);
  }
  if (options.repeats > 0) {
    model.set_input(x.values.data());
    measure(model, options.repeats, threads);
  }
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const Options options = parse_options(argc, argv);
    const netcarve::Bundle bundle = netcarve::read_bundle(fs::absolute(options.bundle));
    netcarve::check_cpu(bundle);
    if (bundle.tokens) {
      run<std::int64_t>(options, bundle);
    } else {
      run<float>(options, bundle);
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return kUserError;
  }
  return EXIT_SUCCESS;
}
