// Arrays of float32 or int64 in NumPy's .npy format, versions 1.0 to 3.0: little-endian, C order.
#pragma once

#include <cerrno>
#include <charconv>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

namespace netcarve {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ && sizeof(float) == 4,
              "values are read and written as they lie in memory");

template <typename T>
struct Array {
  std::vector<std::int64_t> shape;
  std::vector<T> values;  // C order
};

// How .npy files and messages call an element type.
template <typename T>
struct DType;

template <>
struct DType<float> {
  static constexpr std::string_view kCode = "<f4", kName = "float32";
};

template <>
struct DType<std::int64_t> {
  static constexpr std::string_view kCode = "<i8", kName = "int64";
};

// As Python writes a tuple: (16, 1, 12, 12), (3,).
inline std::string shape_text(const std::vector<std::int64_t>& shape) {
  std::string text = "(";
  for (std::size_t i = 0; i < shape.size(); ++i) {
    text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  }
  return text + (shape.size() == 1 ? ",)" : ")");
}

namespace npy {

constexpr std::string_view kMagic{"\x93NUMPY", 6};

struct Header {
  std::string dtype;
  bool fortran_order;
  std::vector<std::int64_t> shape;
};

// Parses the Python dictionary of a header, which holds a string, a bool and a tuple of integers.
// Throws std::runtime_error with what is wrong.
class HeaderParser {
 public:
  explicit HeaderParser(std::string_view text) : text_(text) {}

  Header parse() {
    std::optional<std::string> dtype;
    std::optional<bool> fortran_order;
    std::optional<std::vector<std::int64_t>> shape;
    expect('{');
    while (!accept('}')) {
      const std::string key = string();
      expect(':');
      if (key == "descr") {
        if (accept('[')) throw std::runtime_error("its dtype is structured");
        dtype = string();
      } else if (key == "fortran_order") {
        fortran_order = boolean();
      } else if (key == "shape") {
        shape = tuple();
      } else {
        throw std::runtime_error("its header has the unknown key '" + key + "'");
      }
      if (!accept(',')) {
        expect('}');
        break;
      }
    }
    skip_blanks();
    if (position_ != text_.size()) fail();
    if (!dtype || !fortran_order || !shape) {
      throw std::runtime_error("its header lacks descr, fortran_order or shape");
    }
    return {*dtype, *fortran_order, *shape};
  }

 private:
  [[noreturn]] void fail() const {
    throw std::runtime_error("its header is malformed at character " + std::to_string(position_));
  }

  void skip_blanks() {
    while (position_ < text_.size() && (text_[position_] == ' ' || text_[position_] == '\n')) {
      ++position_;
    }
  }

  bool accept(char wanted) {
    skip_blanks();
    if (position_ == text_.size() || text_[position_] != wanted) return false;
    ++position_;
    return true;
  }

  void expect(char wanted) {
    if (!accept(wanted)) fail();
  }

  std::string string() {
    const char quote = accept('\'') ? '\'' : '"';
    if (quote == '"') expect('"');
    const std::size_t end = text_.find(quote, position_);
    if (end == std::string_view::npos) fail();
    const std::string_view found = text_.substr(position_, end - position_);
    position_ = end + 1;
    return std::string(found);
  }

  bool boolean() {
    skip_blanks();
    for (const std::string_view word : {"True", "False"}) {
      if (text_.substr(position_, word.size()) == word) {
        position_ += word.size();
        return word == "True";
      }
    }
    fail();
  }

  std::vector<std::int64_t> tuple() {
    std::vector<std::int64_t> sizes;
    expect('(');
    while (!accept(')')) {
      skip_blanks();
      std::int64_t size = 0;
      const char* begin = text_.data() + position_;
      const auto [end, error] = std::from_chars(begin, text_.data() + text_.size(), size);
      if (error != std::errc() || size < 0) fail();
      position_ += static_cast<std::size_t>(end - begin);
      sizes.push_back(size);
      if (!accept(',')) {
        expect(')');
        break;
      }
    }
    return sizes;
  }

  std::string_view text_;
  std::size_t position_ = 0;
};

// Reads magic, version and header; leaves `file` where the data begins.
inline Header read_header(std::ifstream& file, std::uintmax_t file_bytes) {
  char start[8];
  if (!file.read(start, sizeof start) || std::string_view(start, kMagic.size()) != kMagic) {
    throw std::runtime_error("it does not begin as one");
  }
  const int version = start[6];
  if (version < 1 || version > 3) {
    throw std::runtime_error("its version is " + std::to_string(version) + "; known: 1 to 3");
  }
  unsigned char length[4] = {};
  const std::size_t length_bytes = version == 1 ? 2 : 4;
  file.read(reinterpret_cast<char*>(length), static_cast<std::streamsize>(length_bytes));
  const std::uintmax_t header_bytes =
      length[0] | length[1] << 8 | length[2] << 16 | static_cast<std::uintmax_t>(length[3]) << 24;
  if (!file || sizeof start + length_bytes + header_bytes > file_bytes) {
    throw std::runtime_error("its header is cut off");
  }
  std::string text(header_bytes, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  return HeaderParser(text).parse();
}

template <typename T>
Array<T> read(std::ifstream& file, std::uintmax_t file_bytes) {
  const Header header = read_header(file, file_bytes);
  if (header.dtype != DType<T>::kCode) {
    throw std::runtime_error("its dtype is '" + header.dtype + "'; expected '" +
                             std::string(DType<T>::kCode) + "', " + std::string(DType<T>::kName));
  }
  if (header.fortran_order) throw std::runtime_error("it is in Fortran order; expected C order");
  std::uintmax_t bytes = sizeof(T);
  for (const std::int64_t signed_size : header.shape) {
    const auto size = static_cast<std::uintmax_t>(signed_size);
    if (size != 0 && bytes > std::numeric_limits<std::uintmax_t>::max() / size) {
      throw std::runtime_error("its shape " + shape_text(header.shape) + " is too large");
    }
    bytes *= size;
  }
  const std::uintmax_t found = file_bytes - static_cast<std::uintmax_t>(file.tellg());
  if (found != bytes) {
    throw std::runtime_error("it holds " + std::to_string(found) + " bytes of data; its shape " +
                             shape_text(header.shape) + " needs " + std::to_string(bytes));
  }
  Array<T> array{header.shape, std::vector<T>(bytes / sizeof(T))};
  file.read(reinterpret_cast<char*>(array.values.data()), static_cast<std::streamsize>(bytes));
  if (!file) throw std::runtime_error("its data cannot be read");
  return array;
}

}  // namespace npy

// The array of T in a file.
// Throws std::runtime_error, which names the file: it cannot be read, is malformed or cut off, of
// another dtype, or not in C order.
template <typename T>
Array<T> read_npy(const std::filesystem::path& path) {
  const std::string unreadable = path.string() + ": not a readable .npy file: ";
  std::error_code error;
  const std::uintmax_t file_bytes = std::filesystem::file_size(path, error);
  if (error) throw std::runtime_error(unreadable + error.message());
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error(unreadable + std::strerror(errno));
  try {
    return npy::read<T>(file, file_bytes);
  } catch (const std::runtime_error& reason) {
    throw std::runtime_error(unreadable + reason.what());
  }
}

// Writes an array under a temporary name in the same folder, then renames it to `path`.
// Throws std::runtime_error, which names the file; then nothing of it is left behind.
inline void write_npy(const std::filesystem::path& path, const Array<float>& array) {
  std::error_code error;
  // Renaming would put a plain file in the place of a device such as /dev/stdout.
  if (std::filesystem::exists(path, error) && !std::filesystem::is_regular_file(path, error)) {
    throw std::runtime_error(path.string() + ": cannot be written: not a plain file");
  }
  std::string header = "{'descr': '" + std::string(DType<float>::kCode) +
                       "', 'fortran_order': False, 'shape': " + shape_text(array.shape) + ", }";
  constexpr std::size_t kStart = 10, kAlignment = 64;
  header.resize((kStart + header.size() + kAlignment) / kAlignment * kAlignment - kStart, ' ');
  header.back() = '\n';
  const std::filesystem::path partial = path.string() + ".partial";
  errno = 0;
  std::ofstream file(partial, std::ios::binary | std::ios::trunc);
  file << npy::kMagic << '\x01' << '\0' << static_cast<char>(header.size() & 0xFF)
       << static_cast<char>(header.size() >> 8) << header;
  file.write(reinterpret_cast<const char*>(array.values.data()),
             static_cast<std::streamsize>(array.values.size() * sizeof(float)));
  file.close();
  if (!file) {
    error = std::error_code(errno, std::generic_category());
  } else {
    std::filesystem::rename(partial, path, error);
    if (!error) return;
  }
  const std::string reason = error.message();
  std::filesystem::remove(partial, error);
  throw std::runtime_error(path.string() + ": cannot be written: " + reason);
}

}  // namespace netcarve
