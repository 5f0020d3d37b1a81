/**
 * What a test says that it proves: a capability of the product (S0.11), or an area of failover that has tests beyond those (F4 the way
 * home, F5 plans, F6 drills, F7 networks, F8 the whole machine, F9 reports).
 */
const ID = String.raw`(?:S\d+\.\d+[a-z]?|F\d+)`;
const IN_TEXT = new RegExp(String.raw`\b${ID}\b`, 'g');
const ALONE = new RegExp(`^${ID}$`);

/** The ids that a text names, in its order, and as often as it does. */
export function capabilityIdsIn(text: string): string[] {
  return text.match(IN_TEXT) ?? [];
}

export function isCapabilityId(text: string): boolean {
  return ALONE.test(text);
}
