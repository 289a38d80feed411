// Lines over steps, as an SVG that scales with its column. Colours are the style sheet's.

import { svg } from "./dom.js";

const WIDTH = 560;
const HEIGHT = 240;
const LEFT = 34;
const BOTTOM = 24;
const TOP = 8;

/** Lines with values from 0 to `highest`, over steps 0 to `steps`: one a value, or those of `at`. */
export function lineChart(lines, { steps, highest, at }) {
  const stepOf = (place) => (at ? at[place] : place);
  const x = (step) => LEFT + ((WIDTH - LEFT - 12) * step) / steps;
  const y = (value) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - value / highest);
  const chart = svg("svg", {
    viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img",
    "aria-label": lines.map(({ name, values }) => `${name}: ${values.at(-1).toFixed(2)}`).join("; "),
  });
  for (const part of [0, 0.25, 0.5, 0.75, 1]) {
    const value = part * highest;
    chart.append(
      svg("line", { x1: LEFT, x2: WIDTH - 12, y1: y(value), y2: y(value), class: "grid" }),
      svg("text", { x: LEFT - 6, y: y(value) + 4, class: "tick end" }, value.toFixed(2)));
  }
  const every = Math.max(1, Math.round(steps / 8));
  for (let step = 0; step <= steps; step += every) {
    chart.append(svg("text", { x: x(step), y: HEIGHT - 6, class: "tick middle" }, String(step)));
  }
  for (const { values, className } of [...lines].reverse()) {
    const points = values.map((value, place) =>
      `${x(stepOf(place)).toFixed(1)},${y(value).toFixed(1)}`);
    chart.append(svg("polyline", { points: points.join(" "), class: `line ${className}` }),
      svg("circle", {
        cx: x(stepOf(values.length - 1)), cy: y(values.at(-1)), r: 4, class: `dot ${className}`,
      }));
  }
  return chart;
}
