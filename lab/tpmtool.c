/*
 * tpmtool: what the lab guest keeps in its TPM 2.0, so that it can be seen later whether it is the same one.
 *
 *   tpmtool write INDEX TEXT    defines the index (a number below 65,536), and writes the text into it, at most 64 bytes
 *   tpmtool read INDEX          prints it
 *
 * Commands go to /dev/tpm0 as they are (TCG, Trusted Platform Module Library, part 3: TPM2_NV_DefineSpace, TPM2_NV_Write,
 * TPM2_NV_Read); the owner has no password.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TAG_SESSIONS 0x8002
#define NV_DEFINE_SPACE 0x12A
#define NV_WRITE 0x137
#define NV_READ 0x14E
#define OWNER 0x40000001u
#define PASSWORD 0x40000009u
#define NV_FIRST 0x01500000u
#define SHA256 0x000B
/* Owner and who knows its (empty) password may write and read it; wrong passwords lock nothing. */
#define ATTRIBUTES 0x02060006u
/* Every index has this size; a shorter text ends with zeros. */
#define TEXT_BYTES 64
#define BUFFER_BYTES 2048

static unsigned char buffer[BUFFER_BYTES];
static size_t length;

static void put(uint32_t value, int bytes) {
  while (bytes-- > 0) buffer[length++] = value >> (8 * bytes);
}

static uint32_t get(const unsigned char *at, int bytes) {
  uint32_t value = 0;
  while (bytes-- > 0) value = value << 8 | *at++;
  return value;
}

static void begin(uint32_t command) {
  length = 0;
  put(TAG_SESSIONS, 2);
  put(0, 4);
  put(command, 4);
}

/* The authorization of the owner, who has no password. */
static void authorize(void) {
  put(9, 4);
  put(PASSWORD, 4);
  put(0, 2);
  put(0, 1);
  put(0, 2);
}

/* The answer replaces the command. */
static void send(const char *what) {
  size_t whole = length;
  length = 2;
  put(whole, 4);
  length = whole;
  int device = open("/dev/tpm0", O_RDWR);
  if (device < 0 || write(device, buffer, length) != (ssize_t)length) {
    perror("tpmtool: /dev/tpm0");
    exit(1);
  }
  ssize_t got = read(device, buffer, sizeof buffer);
  close(device);
  uint32_t code = got < 10 ? 0xFFFFFFFF : get(buffer + 6, 4);
  if (code != 0) {
    fprintf(stderr, "tpmtool: %s: the TPM answered %#x\n", what, code);
    exit(1);
  }
  length = got;
}

static void define(uint32_t index) {
  begin(NV_DEFINE_SPACE);
  put(OWNER, 4);
  authorize();
  put(0, 2);
  put(14, 2);
  put(index, 4);
  put(SHA256, 2);
  put(ATTRIBUTES, 4);
  put(0, 2);
  put(TEXT_BYTES, 2);
  send("define");
}

static void write_index(uint32_t index, const char *text) {
  char padded[TEXT_BYTES] = {0};
  strncpy(padded, text, sizeof padded);
  define(index);
  begin(NV_WRITE);
  put(OWNER, 4);
  put(index, 4);
  authorize();
  put(sizeof padded, 2);
  memcpy(buffer + length, padded, sizeof padded);
  length += sizeof padded;
  put(0, 2);
  send("write");
}

static void read_index(uint32_t index) {
  begin(NV_READ);
  put(OWNER, 4);
  put(index, 4);
  authorize();
  put(TEXT_BYTES, 2);
  put(0, 2);
  send("read");
  printf("%.*s\n", TEXT_BYTES, (char *)buffer + 16);
}

int main(int argc, char **argv) {
  uint32_t index = argc > 2 ? NV_FIRST + strtoul(argv[2], 0, 10) % 65536 : 0;
  if (argc == 4 && strcmp(argv[1], "write") == 0) write_index(index, argv[3]);
  else if (argc == 3 && strcmp(argv[1], "read") == 0) read_index(index);
  else {
    fprintf(stderr, "usage: tpmtool write INDEX TEXT | read INDEX\n");
    return 2;
  }
  return 0;
}
