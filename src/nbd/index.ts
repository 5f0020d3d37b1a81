/**
 * NBD: the network block device protocol, client side.
 *
 * Nouns. An *export* is a disk that an NBD server offers under a name. A *client* (`NbdClient`) is our end of one
 * export: it has one *connection* or, where the server says that this is safe, several. A *request* (read, write,
 * zeroes, trim, flush, block status) is sent with a *cookie*; the *reply* that carries the cookie comes whenever the
 * server is done, in one *chunk* or in many. A *metadata context* is a question that a server can answer for every
 * byte: is it a hole (`base:allocation`), which layer of a chain holds it (`qemu:allocation-depth`), has it changed
 * (`qemu:dirty-bitmap:NAME`). The answer comes as *extents* with *flags*.
 *
 * Promises. A read gives all bytes or a failure; an error anywhere in a reply fails the whole request, even after
 * data came. Block status covers exactly the range asked for. A failed request fails alone; a broken, silent or
 * lost connection fails everything under way, once, with one reason. Nothing that a server sends can make the client
 * write outside the memory of a request or grow without bound. TLS is always verified.
 *
 * Relies on: the server's word for what is zero, for what a layer holds and for what a flush has made durable. Who
 * needs to know better computes digests of what was read.
 *
 * Source: NetworkBlockDevice/nbd, doc/proto.md; QEMU, docs/interop/nbd.rst. What is supported: docs/nbd.md.
 */
export { addressText, type NbdAddress, type NbdTls } from './address.ts';
export { NbdClient, type NbdConnectOptions } from './client.ts';
export {
  ALLOCATION_DEPTH,
  BASE_ALLOCATION,
  type ContentExtents,
  contentExtents,
  depthExtents,
  dirtyBitmapContext,
  dirtyExtents,
} from './disk-extents.ts';
export { NBD_ERRORS } from './errors.ts';
export type { NbdExportInfo } from './export-info.ts';
export type { NbdBlockExtent } from './request.ts';
