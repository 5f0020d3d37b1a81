/** Where an NBD server listens. A unix socket is guarded by file rights; TCP beyond this host wants TLS. */
export type NbdAddress =
  | { readonly kind: 'unix'; readonly path: string }
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number; readonly tls?: NbdTls };

/**
 * What makes a TLS connection trustworthy. The server's certificate is always verified, against `ca` alone
 * and for `serverName`; there is no way to switch that off. TLS 1.3 only.
 */
export interface NbdTls {
  /** Certificates (PEM) of the authorities that may have signed the server's certificate. */
  readonly ca: string | readonly string[];
  /** The name that the server's certificate must carry; also sent as SNI. */
  readonly serverName: string;
  /** This client's own certificate chain and key (PEM), where the server asks for one. */
  readonly identity?: { readonly certificate: string; readonly key: string };
}

export function addressText(address: NbdAddress): string {
  if (address.kind === 'unix') return `nbd+unix:${address.path}`;
  return `${address.tls ? 'nbds' : 'nbd'}://${address.host}:${address.port}`;
}
