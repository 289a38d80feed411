// Calls of the service: with the visitor's key where it asks for one, errors in its own words.

import { byId } from "./dom.js";

const KEY = "raymeta-key";

/** An answer other than 2xx; `message` is the service's own `detail`. */
export class Refused extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

/** The JSON of an answer, and how long it took in milliseconds. A 401 asks the visitor for a key. */
export async function call(method, path, body, { user } = {}) {
  const headers = {};
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (user) headers["X-Session-Id"] = user; // the same replica, which has the state in memory
  for (;;) {
    const key = sessionStorage.getItem(KEY);
    if (key) headers.Authorization = `Bearer ${key}`;
    const started = performance.now();
    const response = await fetch(path, { method, headers, body: JSON.stringify(body) });
    const answer = await response.json();
    if (response.ok) return { answer, took: performance.now() - started };
    if (response.status !== 401) throw new Refused(response.status, answer.detail);
    await askForKey(key ? answer.detail : null);
  }
}

export const get = async (path, query = {}) => {
  const words = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value === undefined || value === null) continue;
    for (const one of [value].flat()) words.append(name, one);
  }
  return (await call("GET", words.size ? `${path}?${words}` : path)).answer;
};

let asking = null; // several calls may be refused at once; one question is enough

function askForKey(complaint) {
  asking ??= new Promise((resolve) => {
    const dialog = byId("key-dialog");
    if (complaint) byId("key-note").textContent = complaint;
    byId("key-form").addEventListener("submit", () => {
      sessionStorage.setItem(KEY, byId("key").value.trim());
      byId("key").value = "";
      asking = null;
      resolve();
    }, { once: true });
    dialog.addEventListener("cancel", (event) => event.preventDefault());
    dialog.showModal();
  });
  return asking;
}
