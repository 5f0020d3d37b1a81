/*
 * labtool: what the lab guest runs to make writes whose fate can be judged afterwards.
 *
 *   labtool ledger  --devices A[,B…] [--report PORT] [--pause-us N]
 *   labtool stripe  --devices A[,B…] --first F --total T --port PORT
 *   labtool latency --device D --pattern random4k|seq64k --count N --span BYTES
 *   labtool fill    --device D | --file F --bytes N --seed S --pattern random|zero
 *                   [--offset O] [--random-offsets B]
 *
 * A ledger record is one sector of 512 bytes, all numbers little-endian:
 *
 *     0  magic «WSLEDGR1»                8  seq, from 1
 *    16  unixMs of the guest            24  number of devices (u32)
 *    28  filler made from seq          508  CRC-32 (IEEE) of bytes 0 to 507
 *
 * Record seq lies on device (seq - 1) mod devices, in slot ((seq - 1) / devices) mod slots, where slots is
 * what the smallest device holds. Only one write is ever under way (O_DIRECT | O_SYNC, one after the other),
 * so the devices at one instant hold exactly the records up to some k: a copy of which anything else can be
 * read was not taken at one instant, or lost a write. lab/ledger.ts reads it back.
 *
 * With `stripe` a ledger goes over the devices of several guests: T in all, those of this one are the devices F, F+1 … of it. One
 * writer outside hands the numbers round, each one when the record before is durable: a line «seq» on PORT asks for a record,
 * the line «seq unixMs» tells that it is durable. All devices must be of the same size.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define RECORD_BYTES 512
#define CHUNK_BYTES (1024 * 1024)
#define DEVICES_MAX 8
#define ALIGNMENT 4096

static const char MAGIC[8] = {'W', 'S', 'L', 'E', 'D', 'G', 'R', '1'};

static void fail(const char *what) {
  fprintf(stderr, "labtool: %s: %s\n", what, strerror(errno));
  exit(1);
}

static void refuse(const char *why) {
  fprintf(stderr, "labtool: %s\n", why);
  exit(2);
}

static uint32_t crc_table[256];

static void make_crc_table(void) {
  for (uint32_t i = 0; i < 256; i++) {
    uint32_t c = i;
    for (int bit = 0; bit < 8; bit++) c = c & 1 ? 0xEDB88320u ^ (c >> 1) : c >> 1;
    crc_table[i] = c;
  }
}

static uint32_t crc32_of(const uint8_t *bytes, size_t count) {
  uint32_t c = 0xFFFFFFFFu;
  for (size_t i = 0; i < count; i++) c = crc_table[(c ^ bytes[i]) & 0xFF] ^ (c >> 8);
  return c ^ 0xFFFFFFFFu;
}

/* SplitMix64: the whole state is the seed, so that equal seeds give equal bytes everywhere. */
static uint64_t next_random(uint64_t *state) {
  uint64_t z = (*state += 0x9E3779B97F4A7C15ull);
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return z ^ (z >> 31);
}

static uint8_t *aligned_buffer(size_t bytes) {
  void *buffer;
  if (posix_memalign(&buffer, ALIGNMENT, bytes)) refuse("out of memory");
  memset(buffer, 0, bytes);
  return buffer;
}

static int open_or_fail(const char *path, int flags) {
  int fd = open(path, flags, 0644);
  if (fd < 0) fail(path);
  return fd;
}

static uint64_t size_of(int fd) {
  off_t end = lseek(fd, 0, SEEK_END);
  if (end < 0) fail("lseek");
  return (uint64_t)end;
}

static void write_at(int fd, const uint8_t *bytes, size_t count, uint64_t offset) {
  while (count > 0) {
    ssize_t done = pwrite(fd, bytes, count, (off_t)offset);
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) fail("write");
    bytes += done;
    count -= (size_t)done;
    offset += (uint64_t)done;
  }
}

static const char *option(int argc, char **argv, const char *name) {
  for (int i = 2; i + 1 < argc; i++)
    if (strcmp(argv[i], name) == 0) return argv[i + 1];
  return NULL;
}

static uint64_t number(int argc, char **argv, const char *name, uint64_t otherwise) {
  const char *text = option(argc, argv, name);
  char *end;
  if (!text) return otherwise;
  uint64_t value = strtoull(text, &end, 10);
  if (*text == 0 || *end != 0) refuse("an option is not a number");
  return value;
}

/* ---- ledger ---- */

static void put_record(uint8_t *record, uint64_t seq, uint64_t unix_ms, uint32_t devices) {
  uint64_t filler = seq;
  memcpy(record, MAGIC, 8);
  memcpy(record + 8, &seq, 8);
  memcpy(record + 16, &unix_ms, 8);
  memcpy(record + 24, &devices, 4);
  for (int at = 28; at < 508; at += 8) {
    uint64_t word = next_random(&filler);
    memcpy(record + at, &word, 8);
  }
  uint32_t crc = crc32_of(record, 508);
  memcpy(record + 508, &crc, 4);
}

/* The largest seq on one device; a record with another number of devices belongs to another ledger. */
static uint64_t largest_seq(int fd, uint64_t slots, uint32_t devices, uint8_t *chunk) {
  uint64_t largest = 0;
  for (uint64_t slot = 0; slot < slots; slot += CHUNK_BYTES / RECORD_BYTES) {
    ssize_t got = pread(fd, chunk, CHUNK_BYTES, (off_t)(slot * RECORD_BYTES));
    if (got < 0) fail("read");
    for (ssize_t at = 0; at + RECORD_BYTES <= got; at += RECORD_BYTES) {
      const uint8_t *record = chunk + at;
      uint64_t seq;
      uint32_t crc, count;
      if (memcmp(record, MAGIC, 8) != 0) continue;
      memcpy(&crc, record + 508, 4);
      if (crc != crc32_of(record, 508)) continue;
      memcpy(&seq, record + 8, 8);
      memcpy(&count, record + 24, 4);
      if (count != devices) refuse("the area holds a ledger over another number of devices: wipe it first");
      if (seq > largest) largest = seq;
    }
  }
  return largest;
}

static int ledger(int argc, char **argv) {
  const char *list = option(argc, argv, "--devices");
  const char *report = option(argc, argv, "--report");
  uint64_t pause_us = number(argc, argv, "--pause-us", 0);
  struct timespec pause = {(time_t)(pause_us / 1000000), (long)(pause_us % 1000000) * 1000};
  int fds[DEVICES_MAX];
  uint32_t devices = 0;
  uint64_t slots = UINT64_MAX, seq = 0;
  uint8_t *chunk = aligned_buffer(CHUNK_BYTES), *record = aligned_buffer(ALIGNMENT);
  if (!list) refuse("--devices is missing");
  for (char *path = strtok(strdup(list), ","); path; path = strtok(NULL, ",")) {
    if (devices == DEVICES_MAX) refuse("too many devices");
    fds[devices] = open_or_fail(path, O_RDWR | O_DIRECT | O_SYNC);
    uint64_t held = size_of(fds[devices++]) / RECORD_BYTES;
    if (held < slots) slots = held;
  }
  if (devices == 0 || slots == 0) refuse("no room for a ledger");
  for (uint32_t i = 0; i < devices; i++) {
    uint64_t found = largest_seq(fds[i], slots, devices, chunk);
    if (found > seq) seq = found;
  }
  /* Nobody need be listening: a full or unconnected port drops the line (EAGAIN) and never delays a write. */
  int port = report ? open_or_fail(report, O_WRONLY | O_NONBLOCK) : -1;
  for (;;) {
    struct timespec now;
    char line[64];
    seq++;
    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t unix_ms = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
    put_record(record, seq, unix_ms, devices);
    write_at(fds[(seq - 1) % devices], record, RECORD_BYTES, (seq - 1) / devices % slots * RECORD_BYTES);
    int length = snprintf(line, sizeof line, "%llu %llu\n", (unsigned long long)seq, (unsigned long long)unix_ms);
    if (port >= 0 && write(port, line, (size_t)length) < 0 && errno != EAGAIN) fail(report);
    if (pause_us) nanosleep(&pause, NULL);
  }
}

/* One line from a port whose other end may come and go; reading nothing means that nobody is there. */
static void read_line(int port, char *line, size_t room) {
  size_t length = 0;
  for (;;) {
    ssize_t got = read(port, line + length, 1);
    if (got < 0 && errno != EINTR && errno != EAGAIN) fail("port");
    if (got <= 0) {
      usleep(1000);
    } else if (line[length] == '\n') {
      line[length] = 0;
      return;
    } else if (++length == room) {
      refuse("a line of the port is too long");
    }
  }
}

static int stripe(int argc, char **argv) {
  const char *list = option(argc, argv, "--devices"), *path = option(argc, argv, "--port");
  uint64_t first = number(argc, argv, "--first", 0), total = number(argc, argv, "--total", 0);
  int fds[DEVICES_MAX];
  uint32_t devices = 0;
  uint64_t slots = UINT64_MAX;
  uint8_t *record = aligned_buffer(ALIGNMENT);
  if (!list || !path) refuse("--devices and --port are needed");
  for (char *device = strtok(strdup(list), ","); device; device = strtok(NULL, ",")) {
    if (devices == DEVICES_MAX) refuse("too many devices");
    fds[devices] = open_or_fail(device, O_RDWR | O_DIRECT | O_SYNC);
    uint64_t held = size_of(fds[devices++]) / RECORD_BYTES;
    if (held < slots) slots = held;
  }
  if (devices == 0 || slots == 0 || first + devices > total) refuse("no such part of a ledger");
  int port = open_or_fail(path, O_RDWR);
  for (;;) {
    struct timespec now;
    char line[64];
    read_line(port, line, sizeof line);
    uint64_t seq = strtoull(line, NULL, 10);
    uint64_t place = seq ? (seq - 1) % total : UINT64_MAX;
    if (place < first || place >= first + devices) refuse("a record that belongs elsewhere");
    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t unix_ms = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
    put_record(record, seq, unix_ms, (uint32_t)total);
    write_at(fds[place - first], record, RECORD_BYTES, (seq - 1) / total % slots * RECORD_BYTES);
    int length = snprintf(line, sizeof line, "%llu %llu\n", (unsigned long long)seq, (unsigned long long)unix_ms);
    if (write(port, line, (size_t)length) != length) fail(path);
  }
}

/* ---- latency ---- */

static int by_value(const void *a, const void *b) {
  uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;
  return left < right ? -1 : left > right;
}

static int latency(int argc, char **argv) {
  const char *device = option(argc, argv, "--device"), *pattern = option(argc, argv, "--pattern");
  uint64_t count = number(argc, argv, "--count", 1000), span = number(argc, argv, "--span", 16 << 20);
  uint64_t seed = number(argc, argv, "--seed", 1);
  if (!device || !pattern) refuse("--device and --pattern are needed");
  int random = strcmp(pattern, "random4k") == 0;
  if (!random && strcmp(pattern, "seq64k") != 0) refuse("--pattern is random4k or seq64k");
  size_t bytes = random ? 4096 : 65536;
  uint64_t blocks = span / bytes;
  int fd = open_or_fail(device, O_WRONLY | O_DIRECT | O_SYNC);
  if (count == 0 || count > 10000000 || blocks == 0 || span > size_of(fd)) refuse("--count or --span out of range");
  uint8_t *buffer = aligned_buffer(bytes);
  uint32_t *micros = malloc(count * sizeof *micros);
  if (!micros) refuse("out of memory");
  for (uint64_t i = 0; i < count; i++) {
    struct timespec before, after;
    uint64_t block = random ? next_random(&seed) % blocks : i % blocks;
    for (size_t at = 0; at < bytes; at += 512) *(uint64_t *)(buffer + at) = next_random(&seed);
    clock_gettime(CLOCK_MONOTONIC, &before);
    write_at(fd, buffer, bytes, block * bytes);
    clock_gettime(CLOCK_MONOTONIC, &after);
    micros[i] = (uint32_t)((after.tv_sec - before.tv_sec) * 1000000 + (after.tv_nsec - before.tv_nsec) / 1000);
  }
  uint64_t sum = 0;
  for (uint64_t i = 0; i < count; i++) sum += micros[i];
  qsort(micros, count, sizeof *micros, by_value);
#define QUANTILE(per_mille) micros[(count - 1) * (per_mille) / 1000]
  printf("{\"pattern\":\"%s\",\"count\":%llu,\"meanUs\":%llu,\"minUs\":%u,\"p50Us\":%u,\"p90Us\":%u,\"p99Us\":%u,\"p999Us\":%u,\"maxUs\":%u}\n",
         pattern, (unsigned long long)count, (unsigned long long)(sum / count), micros[0], QUANTILE(500),
         QUANTILE(900), QUANTILE(990), QUANTILE(999), micros[count - 1]);
  return 0;
}

/* ---- fill ---- */

static int fill(int argc, char **argv) {
  const char *device = option(argc, argv, "--device"), *file = option(argc, argv, "--file");
  const char *pattern = option(argc, argv, "--pattern");
  uint64_t bytes = number(argc, argv, "--bytes", 0), seed = number(argc, argv, "--seed", 1);
  uint64_t start = number(argc, argv, "--offset", 0), scattered = number(argc, argv, "--random-offsets", 0);
  if (!device == !file || !pattern || bytes == 0) refuse("fill needs one of --device and --file, --pattern and --bytes");
  int random = strcmp(pattern, "random") == 0;
  if (!random && strcmp(pattern, "zero") != 0) refuse("--pattern is random or zero");
  if (scattered > CHUNK_BYTES) refuse("--random-offsets is at most 1 MiB");
  int fd = device ? open_or_fail(device, O_WRONLY) : open_or_fail(file, O_WRONLY | O_CREAT);
  uint64_t size = size_of(fd), step = scattered ? scattered : CHUNK_BYTES;
  if (!device && size < start + bytes) size = start + bytes;
  if (start > size || bytes > size - start) refuse("the target is too small");
  uint64_t blocks = scattered ? (size - start) / scattered : 0;
  uint8_t *buffer = aligned_buffer(CHUNK_BYTES);
  for (uint64_t done = 0; done < bytes; done += step) {
    size_t length = bytes - done < step ? (size_t)(bytes - done) : (size_t)step;
    uint64_t offset = start + (scattered ? next_random(&seed) % blocks * scattered : done);
    for (size_t at = 0; random && at < length; at += 8) *(uint64_t *)(buffer + at) = next_random(&seed);
    write_at(fd, buffer, length, offset);
  }
  if (fsync(fd) < 0) fail("fsync");
  return 0;
}

int main(int argc, char **argv) {
  make_crc_table();
  if (argc > 1 && strcmp(argv[1], "ledger") == 0) return ledger(argc, argv);
  if (argc > 1 && strcmp(argv[1], "stripe") == 0) return stripe(argc, argv);
  if (argc > 1 && strcmp(argv[1], "latency") == 0) return latency(argc, argv);
  if (argc > 1 && strcmp(argv[1], "fill") == 0) return fill(argc, argv);
  fprintf(stderr, "usage: labtool ledger|stripe|latency|fill …: see the head of lab/labtool.c\n");
  return 2;
}
