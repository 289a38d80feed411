// The visitor: an id of this browser's own, and one request at a time that brings events and
// gives the list they lead to.

import { call } from "./api.js";

const ID = "raymeta-visitor";
export const NUM_ASKED = 50; // of which the page shows the first, and counts the rest

export function visitorId() {
  let id = localStorage.getItem(ID);
  if (!id) {
    id = `visitor-${randomHex(5)}`;
    localStorage.setItem(ID, id);
  }
  return id;
}

export const randomHex = (bytes) =>
  [...crypto.getRandomValues(new Uint8Array(bytes))]
    .map((byte) => byte.toString(16).padStart(2, "0")).join("");

let last = Promise.resolve();

/** Runs after what was asked before, so that lists come in the order of the events. */
function inTurn(work) {
  const done = last.then(work);
  last = done.catch(() => {});
  return done;
}

/** The list after these events, which are kept first. What was bought is left out of it. */
export function recommended(events, { variant }) {
  const user = visitorId();
  const request = {
    user_id: user, n: NUM_ASKED, explain: true, exclude_seen: false, exclude_bought: true,
    events: events.map((event) => ({ event_id: randomHex(8), ...event })),
  };
  if (variant) request.variant = variant;
  return inTurn(() => call("POST", "/v1/recommend", request, { user }));
}

/** These items in the visitor's order. */
export function ranked(items, { scenario, query, variant, events = [] }) {
  const user = visitorId();
  const request = { user_id: user, items, scenario, events };
  if (query) request.query = query;
  if (variant) request.variant = variant;
  return inTurn(() => call("POST", "/v1/rank", request, { user }));
}

/** Has the service know what was shown, so that what follows from it can be counted. */
export function wasShown({ recommendation_id: list, items }, num) {
  const user = visitorId();
  const events = items.slice(0, num).map(({ id }, position) => ({
    item_id: id, event_type: "impression", ranking_id: list, position, event_id: randomHex(8),
  }));
  if (!events.length) return Promise.resolve();
  return inTurn(() => call("POST", "/v1/events", { user_id: user, events }, { user }));
}

/** Erases everything that the service keeps of the visitor; gives its receipt. */
export function forgotten() {
  const user = visitorId();
  return inTurn(() => call("DELETE", `/v1/users/${encodeURIComponent(user)}`, undefined, { user }));
}
