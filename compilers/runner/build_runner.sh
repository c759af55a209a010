#!/bin/sh
# Builds the runner of the bundle in which this script lies: an executable that needs no Python.
#
#   sh build_runner.sh --tvm-ffi DIR --tvm DIR [--compiler CXX] [--output FILE]
#
# It needs a C++17 compiler, and headers and libraries of TVM's runtime as its two wheels on PyPI
# hold them. Take those of the versions in manifest.json ("versions"); a wheel is a zip archive, so
# that they can be unpacked anywhere. An option may also be given by the environment:
#
#   --tvm-ffi DIR   TVM_FFI_DIR  folder tvm_ffi of apache-tvm-ffi: include/, lib/libtvm_ffi.so
#   --tvm DIR       TVM_DIR      folder tvm of apache-tvm: lib/libtvm_runtime.so
#   --compiler CXX  CXX          compiler; default g++
#   --output FILE                the executable; default native/run beside this script
#
# The two libraries, the compiled subnet and the manifest are copied into the executable's folder,
# which then needs nothing outside but the C and C++ libraries of the system: copy it as a whole.
set -eu

bundle=$(cd "$(dirname "$0")" && pwd -P)
tvm_ffi=${TVM_FFI_DIR:-} tvm=${TVM_DIR:-} compiler=${CXX:-g++} output=$bundle/native/run

fail() {
    echo "error: $*" >&2
    exit 2
}

while [ $# -gt 0 ]; do
    case $1 in
        --tvm-ffi | --tvm | --compiler | --output) [ $# -ge 2 ] || fail "$1 needs a value" ;;
        *) fail "unknown argument $1; allowed: --tvm-ffi, --tvm, --compiler, --output" ;;
    esac
    case $1 in
        --tvm-ffi) tvm_ffi=$2 ;;
        --tvm) tvm=$2 ;;
        --compiler) compiler=$2 ;;
        --output) output=$2 ;;
    esac
    shift 2
done

[ -n "$tvm_ffi" ] || fail "--tvm-ffi or TVM_FFI_DIR must name the folder tvm_ffi of apache-tvm-ffi"
[ -n "$tvm" ] || fail "--tvm or TVM_DIR must name the folder tvm of apache-tvm"
libtvm_ffi=$tvm_ffi/lib/libtvm_ffi.so libtvm_runtime=$tvm/lib/libtvm_runtime.so
for needed in "$tvm_ffi/include/tvm/ffi/extra/module.h" "$libtvm_ffi" "$libtvm_runtime"; do
    [ -f "$needed" ] || fail "$needed: no such file"
done
command -v "$compiler" >/dev/null || fail "no compiler '$compiler'; install one, or name another"

mkdir -p "$(dirname "$output")"
folder=$(cd "$(dirname "$output")" && pwd -P)
partial=$folder/.$(basename "$output").partial
trap 'rm -f "$partial"' EXIT
# Nothing of libtvm_runtime is called by name: it registers what the library is loaded with.
"$compiler" -std=c++17 -O2 -o "$partial" "$bundle/runner.cc" -I "$tvm_ffi/include" \
    -Wl,--no-as-needed "$libtvm_runtime" "$libtvm_ffi" -Wl,-rpath,'$ORIGIN'
cp "$libtvm_runtime" "$libtvm_ffi" "$folder"
[ "$folder" = "$bundle" ] || cp "$bundle/library.so" "$bundle/manifest.json" "$folder"
mv -f "$partial" "$folder/$(basename "$output")"
