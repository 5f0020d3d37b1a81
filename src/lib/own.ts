/** What a record says of a name that people have given. Names such as `constructor` are no others: what every object has is not what the record says. */
export function ownOf<T>(record: Readonly<Record<string, T>>, name: string): T | undefined {
  return Object.hasOwn(record, name) ? record[name] : undefined;
}
