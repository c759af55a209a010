/* A plugin of qemu-user: counts the instructions that the guest executes.
 *
 *     qemu-aarch64 -plugin count_instructions.so,out=FILE ...
 *
 * FILE receives the number when the guest exits. Distributions ship no header for plugins, so what
 * is used of the interface is declared here; QEMU_PLUGIN_API is its version (1 up to QEMU 8). */

#include <inttypes.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

typedef uint64_t plugin_id;
struct qemu_plugin_tb;

void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, void (*)(plugin_id, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, void (*)(unsigned, void *),
                                          int flags, void *);
void qemu_plugin_register_atexit_cb(plugin_id, void (*)(plugin_id, void *), void *);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);

EXPORT int qemu_plugin_version = QEMU_PLUGIN_API;

static uint64_t executed;
static char path[4096];

static void block_executed(unsigned cpu, void *instructions) {
  (void)cpu;
  executed += (uintptr_t)instructions;
}

static void block_translated(plugin_id id, struct qemu_plugin_tb *block) {
  (void)id;
  qemu_plugin_register_vcpu_tb_exec_cb(block, block_executed, 0,
                                       (void *)(uintptr_t)qemu_plugin_tb_n_insns(block));
}

static void guest_exited(plugin_id id, void *unused) {
  (void)id, (void)unused;
  FILE *file = fopen(path, "w");
  if (file == NULL) return;
  fprintf(file, "%" PRIu64 "\n", executed);
  fclose(file);
}

EXPORT int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv) {
  (void)info;
  if (argc != 1 || strncmp(argv[0], "out=", 4) != 0 || strlen(argv[0] + 4) >= sizeof path) {
    return -1;
  }
  strcpy(path, argv[0] + 4);
  qemu_plugin_register_vcpu_tb_trans_cb(id, block_translated);
  qemu_plugin_register_atexit_cb(id, guest_exited, NULL);
  return 0;
}
