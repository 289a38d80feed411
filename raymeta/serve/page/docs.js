// The service's own OpenAPI description as a page: routes by what they are about, then bodies.

import { byId, counted, el, say } from "./dom.js";

const METHODS = ["get", "post", "put", "patch", "delete"];

async function show() {
  try {
    const answer = await fetch("/openapi.json");
    if (!answer.ok) throw new Error(`/openapi.json answers ${answer.status}.`);
    draw(await answer.json());
  } catch (error) {
    say(error.message, { wrong: true });
  } finally {
    byId("main").setAttribute("aria-busy", "false");
  }
}

function draw({ info, paths, components }) {
  const routes = Object.entries(paths).flatMap(([path, methods]) =>
    METHODS.filter((method) => methods[method]).map((method) => ({ path, method, ...methods[method] })));
  const tags = [...new Set(routes.map(({ tags: [tag] = ["other"] }) => tag))];
  byId("about").textContent = `${info.description} ${counted(routes.length, "route")}, version ${info.version}. `
    + "Errors of all of them are bodies of the form Problem.";
  byId("routes").replaceChildren(...tags.map((tag) => el("section", { className: "panel docs-tag" },
    el("h2", { textContent: tag.charAt(0).toUpperCase() + tag.slice(1) }),
    ...routes.filter(({ tags: [of] = ["other"] }) => of === tag).map(routeOf))));
  byId("schemas").replaceChildren(...Object.entries(components.schemas)
    .sort(([one], [other]) => one.localeCompare(other)).map(schemaOf));
  byId("words").oninput = find;
}

// --- a route

function routeOf(route) {
  const bodies = Object.entries(route.requestBody?.content ?? {});
  return el("details", { className: "docs-item", "data-words": `${route.method} ${route.path} ${route.description ?? ""}`.toLowerCase() },
    el("summary", {},
      el("span", { className: `method ${route.method}`, textContent: route.method.toUpperCase() }),
      el("code", { textContent: route.path })),
    el("p", { textContent: route.description ?? route.summary ?? "" }),
    route.security ? el("p", { className: "note", textContent: "Takes a key: Authorization: Bearer, or X-API-Key." }) : null,
    route.parameters?.length ? fields("Parameters", route.parameters.map((one) => ({
      name: one.name, required: one.required, schema: one.schema,
      description: [`in the ${one.in}.`, one.description ?? ""].join(" "),
    }))) : null,
    ...bodies.map(([kind, { schema }]) => el("p", {}, "Body ", el("code", { textContent: kind }), ": ", typeOf(schema))),
    el("h3", { textContent: "Answers" }),
    el("ul", { className: "docs-answers" }, ...Object.entries(route.responses).map(([status, { description, content }]) =>
      el("li", {}, el("code", { textContent: status }), ` ${description} `,
        ...Object.values(content ?? {}).map(({ schema }) => typeOf(schema))))));
}

// --- a body

function schemaOf([name, schema]) {
  const required = new Set(schema.required ?? []);
  const rows = Object.entries(schema.properties ?? {}).map(([key, value]) =>
    ({ name: key, required: required.has(key), schema: value, description: value.description ?? "" }));
  return el("details", { className: "docs-item", id: `schema-${name}`, "data-words": `${name} ${rows.map((row) => row.name).join(" ")}`.toLowerCase() },
    el("summary", {}, el("code", { textContent: name })),
    el("p", { textContent: schema.description ?? "" }),
    rows.length ? fields("Fields", rows) : null,
    ...(schema.examples ?? []).map((one) => el("pre", { tabIndex: 0, textContent: JSON.stringify(one, null, 2) })));
}

function fields(title, rows) {
  return el("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": title }, el("table", {},
    el("thead", {}, el("tr", {}, ...["Name", "Type", "What it is"].map((head) => el("th", { scope: "col", textContent: head })))),
    el("tbody", {}, ...rows.map((row) => el("tr", {},
      el("th", { scope: "row" }, el("code", { textContent: row.name }), row.required ? " (required)" : ""),
      el("td", {}, typeOf(row.schema)),
      el("td", { textContent: row.description }))))));
}

/** A type in words, with a link where it is a body of its own. */
function typeOf(schema = {}) {
  const parts = schema.anyOf ?? schema.oneOf;
  if (schema.$ref) return linkTo(schema.$ref.split("/").at(-1));
  if (parts) return el("span", {}, ...parts.flatMap((part, at) => (at ? [" or ", typeOf(part)] : [typeOf(part)])));
  if (schema.type === "array") return el("span", {}, "list of ", typeOf(schema.items));
  if (schema.enum) return el("span", { textContent: schema.enum.map((value) => JSON.stringify(value)).join(", ") });
  if (schema.const !== undefined) return el("span", { textContent: JSON.stringify(schema.const) });
  const bounds = [["minimum", "at least"], ["maximum", "at most"], ["exclusiveMinimum", "above"], ["exclusiveMaximum", "below"], ["maxLength", "length at most"], ["maxItems", "at most"]]
    .filter(([key]) => schema[key] !== undefined).map(([key, word]) => `${word} ${schema[key]}`);
  const told = schema.default === undefined || schema.default === null ? [] : [`${JSON.stringify(schema.default)} if not given`];
  return el("span", { textContent: [schema.type ?? "anything", ...bounds, ...told].join(", ") });
}

function linkTo(name) {
  const link = el("a", { href: `#schema-${name}`, textContent: name });
  link.onclick = () => { // before the browser goes there: what a search hid could not be gone to
    const item = byId(`schema-${name}`);
    item.hidden = byId("schemas-section").hidden = false;
    item.open = true;
  };
  return link;
}

function find() {
  const words = byId("words").value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const item of document.querySelectorAll(".docs-item")) {
    item.hidden = !words.every((word) => item.dataset.words.includes(word));
  }
  for (const part of document.querySelectorAll(".docs-tag, #schemas-section")) {
    part.hidden = !part.querySelector(".docs-item:not([hidden])");
  }
}

show();
