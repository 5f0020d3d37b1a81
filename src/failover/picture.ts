import { crc32, deflateSync } from 'node:zlib';

/** A picture of 8-bit RGB: `rgb[(y * width + x) * 3]` is the red of a pixel. */
export interface Picture {
  readonly width: number;
  readonly height: number;
  readonly rgb: Uint8Array;
}

/** Larger than any screen; a header that claims more is not a screen. */
const SIDE_PIXELS_MAX = 16_384;
const PIXELS_MAX = 64 * 1024 * 1024;

/**
 * Reads a binary PPM («P6», maximum 255), the form in which QEMU's screendump writes. The bytes come from
 * outside: anything that is not a whole such picture is undefined, bytes behind it are ignored.
 */
export function decodePpm(bytes: Uint8Array): Picture | undefined {
  // The head is four words between white space; comments run from # to the end of the line.
  const head = Buffer.from(bytes.subarray(0, 1024)).toString('latin1');
  const gap = '(?:\\s|#[^\\n]*\\n)+';
  const match = new RegExp(`^P6${gap}(\\d{1,5})${gap}(\\d{1,5})${gap}255\\s`).exec(head);
  if (!match) return undefined;
  const width = Number(match[1]);
  const height = Number(match[2]);
  if (width === 0 || height === 0 || width > SIDE_PIXELS_MAX || height > SIDE_PIXELS_MAX) return undefined;
  if (width * height > PIXELS_MAX) return undefined;
  const rgb = bytes.subarray(match[0].length, match[0].length + width * height * 3);
  return rgb.length === width * height * 3 ? { width, height, rgb } : undefined;
}

/**
 * How many colours a picture has, counted up to `limit`. One means that nothing is drawn: a black screen, or
 * a machine whose display was never set up.
 */
export function distinctColours(picture: Picture, limit = 256): number {
  const seen = new Set<number>();
  const { rgb } = picture;
  for (let at = 0; at < rgb.length && seen.size < limit; at += 3) {
    seen.add((rgb[at]! << 16) | (rgb[at + 1]! << 8) | rgb[at + 2]!);
  }
  return seen.size;
}

/** The part of a picture inside a rectangle; what lies outside the picture is left out. */
export function cropPicture(
  picture: Picture,
  area: { x: number; y: number; width: number; height: number },
): Picture | undefined {
  const left = Math.max(0, area.x);
  const top = Math.max(0, area.y);
  const width = Math.min(picture.width, area.x + area.width) - left;
  const height = Math.min(picture.height, area.y + area.height) - top;
  if (width <= 0 || height <= 0) return undefined;
  const rgb = new Uint8Array(width * height * 3);
  for (let row = 0; row < height; row++) {
    const from = ((top + row) * picture.width + left) * 3;
    rgb.set(picture.rgb.subarray(from, from + width * 3), row * width * 3);
  }
  return { width, height, rgb };
}

const PNG_SIGNATURE = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
const PNG_TRUE_COLOUR = 2;

/** The picture as PNG (RFC 2083: true colour, 8 bits, no filter), so that people and browsers can look at it. */
export function encodePng(picture: Picture): Buffer {
  const { width, height, rgb } = picture;
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header.set([8, PNG_TRUE_COLOUR], 8);
  const stride = width * 3;
  const lines = Buffer.alloc((stride + 1) * height);
  for (let y = 0; y < height; y++) {
    lines.set(rgb.subarray(y * stride, (y + 1) * stride), y * (stride + 1) + 1);
  }
  return Buffer.concat([
    PNG_SIGNATURE,
    pngChunk('IHDR', header),
    pngChunk('IDAT', deflateSync(lines)),
    pngChunk('IEND', Buffer.alloc(0)),
  ]);
}

function pngChunk(type: string, data: Buffer): Buffer {
  const body = Buffer.concat([Buffer.from(type, 'latin1'), data]);
  const chunk = Buffer.alloc(body.length + 8);
  chunk.writeUInt32BE(data.length, 0);
  chunk.set(body, 4);
  chunk.writeUInt32BE(crc32(body), body.length + 4);
  return chunk;
}
