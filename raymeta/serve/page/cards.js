// What items are called, asked for once each.

import { get } from "./api.js";

const MAX_ASKED = 100; // the service refuses more ids in one request
const known = new Map();
let variant;

/** Items may differ by variant: forget what the last one called them. */
export function useVariant(name) {
  variant = name;
  known.clear();
}

export const remember = (cards) => cards.forEach((card) => known.set(card.item_id, card));

/** The cards of these ids, in their order. */
export async function cardsOf(ids) {
  const missing = [...new Set(ids)].filter((id) => !known.has(id));
  for (let from = 0; from < missing.length; from += MAX_ASKED) {
    const asked = missing.slice(from, from + MAX_ASKED);
    remember(await get("/playground/cards", { item_id: asked, variant }));
  }
  return ids.map((id) => known.get(id));
}
