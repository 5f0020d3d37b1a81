/** A host and a port as they stand in a URL: an IPv6 address has brackets (RFC 3986, section 3.2.2). */
export function hostPort({ host, port }: { readonly host: string; readonly port: number }): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}
