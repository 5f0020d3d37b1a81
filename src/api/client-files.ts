/**
 * Where a client on the same host finds what it needs, relative to the data directory. The site writes them; a client
 * only reads.
 */
export const CLIENT_FILES = {
  /** JSON `{ host, port }`: where the API listens now; written when the port is open, removed when it closes. */
  apiAddress: 'run/api.json',
  /** PEM certificate of the site's own authority, which vouches for the API's certificate. */
  authority: 'keys/authority.pem',
  /** The operator token: one line of text. */
  operatorToken: 'keys/operator.token',
} as const;
