/*
 * Process 1 of the lab guest, from the kernel's first to the last instant. It makes the root file system visible, starts the
 * agent, because everything outside waits for it, and beside it what is not needed to answer (guest/behind). Where a processor
 * is translated each program that is started costs as much as thousands of calls: so no shell and no libc stand in the way.
 *
 * The power button and the agent end the guest by a signal: TERM or USR1 for power off, USR2 for a new start.
 */
#include <fcntl.h>
#include <linux/reboot.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define MODULES_FIRST "/modules"
#define MODULES_LATER "/lib/modules"
#define AGENT_PORT "/dev/virtio-ports/org.qemu.guest_agent.0"
#define TEXT_BYTES 4096
#define MILLISECOND 1000000L

enum { SIG_KILL = 9, SIG_USR1 = 10, SIG_USR2 = 12, SIG_TERM = 15, SIG_CHILD = 17 };

typedef unsigned long word;
struct span {
  long seconds, nanoseconds;
};
struct entry {
  word inode, offset;
  unsigned short bytes;
  unsigned char type;
  char name[];
};

/* The kernel takes its fourth argument in another register than a function does. */
long kernel(long number, word a, word b, word c, word d, word e);
__asm__(
    ".globl kernel\n"
    "kernel: mov %rdi, %rax\n mov %rsi, %rdi\n mov %rdx, %rsi\n mov %rcx, %rdx\n mov %r8, %r10\n mov %r9, %r8\n"
    "syscall\n ret\n");
#define CALL(name, a, b, c, d, e) kernel(SYS_##name, (word)(a), (word)(b), (word)(c), (word)(d), (word)(e))

static const char *const ENVIRONMENT[] = {"PATH=/bin:/sbin:/usr/bin:/usr/sbin", "HOME=/", "TERM=linux", 0};

static word length_of(const char *text) {
  word count = 0;
  while (text[count]) count++;
  return count;
}

static int starts_with(const char *text, const char *head) {
  while (*head)
    if (*text++ != *head++) return 0;
  return 1;
}

/* Appends to what `end` points into, and returns the new end. */
static char *append(char *end, const char *text) {
  while (*text) *end++ = *text++;
  *end = 0;
  return end;
}

static void say(const char *what, const char *about) {
  char line[TEXT_BYTES * 2];
  char *end = append(append(append(line, "lab guest"), what), about);
  append(end, "\n");
  int console = CALL(open, "/dev/console", O_WRONLY, 0, 0, 0);
  CALL(write, console, line, length_of(line), 0, 0);
  CALL(close, console, 0, 0, 0, 0);
}

/* Nobody is there to be told: the console has the last word, and the machine stands still. */
static void give_up(const char *what, const char *about) {
  say(what, about);
  for (;;) CALL(pause, 0, 0, 0, 0, 0);
}

static void rest(long milliseconds) {
  struct span span = {milliseconds / 1000, milliseconds % 1000 * MILLISECOND};
  CALL(nanosleep, &span, 0, 0, 0, 0);
}

/* The first TEXT_BYTES - 1 of a file as text; empty if it cannot be read. */
static void read_text(const char *path, char *text) {
  long count = -1;
  int file = CALL(open, path, O_RDONLY, 0, 0, 0);
  if (file >= 0) {
    count = CALL(read, file, text, TEXT_BYTES - 1, 0, 0);
    CALL(close, file, 0, 0, 0, 0);
  }
  text[count > 0 ? count : 0] = 0;
}

/* Ends the text at the first character of `ends`, and returns what follows it, or its end. */
static char *split(char *text, char ends) {
  while (*text && *text != ends) text++;
  if (*text) *text++ = 0;
  return text;
}

static int mounted(const char *device, const char *where, const char *type, word flags) {
  return CALL(mount, device, where, type, flags, 0) == 0;
}

static void load_modules(const char *directory) {
  char order[TEXT_BYTES], path[TEXT_BYTES];
  append(append(path, directory), "/order");
  read_text(path, order);
  for (char *name = order, *next; *name; name = next) {
    next = split(name, '\n');
    append(append(append(path, directory), "/"), name);
    int module = CALL(open, path, O_RDONLY, 0, 0, 0);
    if (CALL(finit_module, module, "", 0, 0, 0) != 0) say(": not loaded: ", path);
    CALL(close, module, 0, 0, 0, 0);
  }
}

/* From the archive that the kernel unpacked to the root file system on the disk. */
static void enter_root(void) {
  char line[TEXT_BYTES];
  mounted("dev", "/dev", "devtmpfs", 0);
  mounted("proc", "/proc", "proc", 0);
  load_modules(MODULES_FIRST);
  read_text("/proc/cmdline", line);
  char *root = line;
  while (*root && !starts_with(root, "root=")) root = split(root, ' ');
  if (*root) root += length_of("root=");
  split(root, ' ');
  split(root, '\n');
  for (int tries = 0; CALL(access, root, 0, 0, 0, 0) != 0 && tries < 500; tries++) rest(10);
  if (!mounted(root, "/mnt", "ext4", MS_NOATIME)) give_up(": no root file system on ", root);
  mounted("/dev", "/mnt/dev", 0, MS_MOVE);
  mounted("/proc", "/mnt/proc", 0, MS_MOVE);
  CALL(chdir, "/mnt", 0, 0, 0, 0);
  mounted(".", "/", 0, MS_MOVE);
  CALL(chroot, ".", 0, 0, 0, 0);
  CALL(chdir, "/", 0, 0, 0, 0);
}

/* /dev/virtio-ports/NAME for each port, as udev makes them elsewhere. */
static void name_ports(void) {
  char entries[TEXT_BYTES], path[TEXT_BYTES], name[TEXT_BYTES], target[TEXT_BYTES];
  int ports = CALL(open, "/sys/class/virtio-ports", O_RDONLY | O_DIRECTORY, 0, 0, 0);
  long count = ports < 0 ? 0 : CALL(getdents64, ports, entries, sizeof entries, 0, 0);
  for (long at = 0; at < count;) {
    struct entry *port = (struct entry *)(entries + at);
    at += port->bytes;
    if (port->name[0] == '.') continue;
    append(append(append(path, "/sys/class/virtio-ports/"), port->name), "/name");
    read_text(path, name);
    split(name, '\n');
    if (!name[0]) continue;
    append(append(target, "/dev/"), port->name);
    append(append(path, "/dev/virtio-ports/"), name);
    CALL(symlink, target, path, 0, 0, 0);
  }
  CALL(close, ports, 0, 0, 0, 0);
}

static void take_name(void) {
  char name[TEXT_BYTES];
  read_text("/data/hostname", name);
  if (!name[0]) read_text("/etc/hostname", name);
  split(name, '\n');
  CALL(sethostname, name, length_of(name), 0, 0, 0);
}

static void prepare(void) {
  mounted("sys", "/sys", "sysfs", 0);
  mounted("tmp", "/run", "tmpfs", 0);
  mounted("tmp", "/tmp", "tmpfs", 0);
  static const char *const made[] = {"/run/lock", "/run/log", "/run/www", "/dev/virtio-ports", 0};
  for (int i = 0; made[i]; i++) CALL(mkdir, made[i], 0755, 0, 0, 0);
  name_ports();
  if (CALL(access, "/dev/vdb2", 0, 0, 0, 0) == 0 && !mounted("/dev/vdb2", "/data", "ext4", MS_NOATIME))
    say(": /data did not mount", "");
  take_name();
}

/* The signals that process 1 waits for are blocked in it, so that none is lost between two waits. */
static const word WAITED_FOR = 1ul << (SIG_CHILD - 1) | 1ul << (SIG_TERM - 1) | 1ul << (SIG_USR1 - 1) | 1ul << (SIG_USR2 - 1);

static void block(word signals) { CALL(rt_sigprocmask, 2, &signals, 0, sizeof signals, 0); }

/* A child process: 0 in the child. */
static long child(void) {
  long process = CALL(fork, 0, 0, 0, 0, 0);
  if (process == 0) block(0);
  return process;
}

static void become(const char *const *arguments) {
  CALL(execve, arguments[0], arguments, ENVIRONMENT, 0, 0);
  say(": cannot run ", arguments[0]);
  CALL(exit, 127, 0, 0, 0, 0);
}

static void start_behind(void) {
  static const char *const behind[] = {"/sbin/behind", 0};
  if (child() != 0) return;
  int log = CALL(open, "/run/log/behind.log", O_WRONLY | O_CREAT, 0644, 0, 0);
  CALL(dup2, log, 1, 0, 0, 0);
  CALL(dup2, log, 2, 0, 0, 0);
  load_modules(MODULES_LATER);
  become(behind);
}

static long start_agent(void) {
  static const char *const agent[] = {
      "/usr/sbin/qemu-ga", "-m", "virtio-serial", "-p", AGENT_PORT, "-t", "/run", "-l", "/run/log/qemu-ga.log",
      "-F/etc/qemu/fsfreeze-hook", 0};
  if (CALL(access, AGENT_PORT, 0, 0, 0, 0) != 0) return -1;
  long process = child();
  if (process == 0) become(agent);
  return process;
}

/* Everyone but process 1 is asked, then told, to go; then the file systems are closed cleanly. */
static void stop(int signal) {
  struct span limit = {0, 100 * MILLISECOND};
  word children = 1ul << (SIG_CHILD - 1);
  CALL(kill, -1, SIG_TERM, 0, 0, 0);
  while (CALL(rt_sigtimedwait, &children, 0, &limit, sizeof children, 0) == SIG_CHILD) {
    long gone;
    do gone = CALL(wait4, -1, 0, WNOHANG, 0, 0);
    while (gone > 0);
    if (gone < 0) break;
  }
  CALL(kill, -1, SIG_KILL, 0, 0, 0);
  CALL(umount2, "/data", 0, 0, 0, 0);
  mounted(0, "/", 0, MS_REMOUNT | MS_RDONLY);
  CALL(sync, 0, 0, 0, 0, 0);
  int command = signal == SIG_USR2 ? LINUX_REBOOT_CMD_RESTART : LINUX_REBOOT_CMD_POWER_OFF;
  CALL(reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, command, 0, 0);
}

void _start(void) {
  char uptime[TEXT_BYTES];
  enter_root();
  block(WAITED_FOR);
  prepare();
  long agent = start_agent();
  start_behind();
  read_text("/proc/uptime", uptime);
  split(uptime, '\n');
  say(" up ", uptime);
  for (;;) {
    int signal = CALL(rt_sigtimedwait, &WAITED_FOR, 0, 0, sizeof WAITED_FOR, 0);
    if (signal == SIG_TERM || signal == SIG_USR1 || signal == SIG_USR2) stop(signal);
    int agent_ended = 0;
    for (long gone; (gone = CALL(wait4, -1, 0, WNOHANG, 0, 0)) > 0;) agent_ended |= gone == agent;
    if (!agent_ended) continue;
    rest(200);
    agent = start_agent();
  }
}
