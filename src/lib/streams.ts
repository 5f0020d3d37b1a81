/** Passes on what comes, and tells of each piece before. */
export async function* observed<T>(source: AsyncIterable<T>, onPiece: (piece: T) => void): AsyncGenerator<T> {
  for await (const piece of source) {
    onPiece(piece);
    yield piece;
  }
}
