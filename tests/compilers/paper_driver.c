/* A stand-in for NVIDIA's driver: it names one GPU, sm_86, and can do nothing else. */
#include <string.h>

int cuInit(unsigned flags) { (void)flags; return 0; }
int cuDeviceGetCount(int *count) { *count = 1; return 0; }
int cuDeviceGet(int *device, int index) { *device = index; return 0; }
int cuDeviceGetName(char *name, int size, int device) {
    (void)device;
    strncpy(name, "Paper GPU", size);
    return 0;
}
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    (void)device;
    *value = attribute == 75 ? 8 : attribute == 76 ? 6 : 0;
    return 0;
}
int cuGetErrorName(int status, const char **name) {
    (void)status;
    *name = "CUDA_ERROR_NO_DEVICE";
    return 0;
}
int cuGetErrorString(int status, const char **text) { return cuGetErrorName(status, text); }

/* What TVM's CUDA runtime is linked with. */
int cuFuncSetAttribute(void) { return 100; }
int cuLaunchKernelEx(void) { return 100; }
int cuModuleGetFunction(void) { return 100; }
int cuModuleLoadData(void) { return 100; }
int cuModuleUnload(void) { return 0; }
int cuTensorMapEncodeTiled(void) { return 100; }
