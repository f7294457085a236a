
// A run's report: facts, curves and tables, before its circuits.
const SIZE = { width: 520, height: 250, left: 62, right: 30, top: 12, bottom: 34 };
const DASHES = ["", "7 4", "2 3", "9 3 2 3"];

// Steps between ticks are 1, 2 or 5 times a power of ten.
function ticks(low, high, most) {
  const rough = (high - low) / most, power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5].find((factor) => factor * power >= rough) ?? 10);
  const out = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i++) out.push(i * step);
  return out;
}
function decades(low, high) {
  const out = [];
  for (let power = Math.floor(low); power <= Math.ceil(high); power++) {
    for (const factor of high - low > 3 ? [1] : [1, 2, 5]) out.push(Math.log10(factor) + power);
  }
  return out.filter((at) => at >= low - 1e-9 && at <= high + 1e-9);
}
const compact = (x) => (x !== 0 && (Math.abs(x) >= 1e6 || Math.abs(x) < 1e-3) ? x.toExponential(1) : String(Number(x.toPrecision(4)))).replace("-", "−");

function chart(entry) {
  const out = element("figure", {}), at = { log: false };
  const caption = element("figcaption", {}, element("b", {}, entry.title), entry.unit ? ` (${entry.unit})` : "");
  const log = element("button", { "aria-pressed": "false", title: "Logarithmic or linear" }, "log");
  log.addEventListener("click", () => { at.log = !at.log; log.setAttribute("aria-pressed", at.log); draw(); });
  const values = entry.curves.flatMap((curve) => curve.points.map((point) => point[1]));
  if (Math.min(...values) > 0) caption.append(" ", log);
  const area = element("div", {}), reading = element("div", { class: "quiet reading" });
  const draw = () => area.replaceChildren(curves(entry, at.log, reading));
  draw();
  const legend = element("div", { class: "legend" });
  entry.curves.forEach((curve, i) => {
    const key = drawn("svg", { width: 28, height: 10 });
    key.append(drawn("path", { class: `curve c${i % 6}`, d: "M1 5 H27", "stroke-dasharray": DASHES[i % DASHES.length] }));
    legend.append(element("span", {}, key, ` ${curve.name}`));
  });
  out.append(caption, area, legend, reading);
  if (entry.averaged > 1) out.append(element("div", { class: "quiet" }, `Points are means of ${entry.averaged} logged steps.`));
  return out;
}

function curves(entry, log, reading) {
  const { width, height, left, right, top, bottom } = SIZE;
  const scaled = (y) => (log ? Math.log10(y) : y);
  const steps = entry.curves.flatMap((curve) => curve.points.map((point) => point[0]));
  const values = entry.curves.flatMap((curve) => curve.points.map((point) => scaled(point[1])));
  const first = Math.min(...steps), last = Math.max(...steps, first + 1);
  let low = Math.min(...values), high = Math.max(...values);
  if (low === high) [low, high] = [low - Math.max(0.5, Math.abs(low) / 2), high + Math.max(0.5, Math.abs(high) / 2)];
  const x = (step) => left + ((width - left - right) * (step - first)) / (last - first);
  const y = (value) => height - bottom - ((height - top - bottom) * (value - low)) / (high - low);
  const svg = drawn("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${entry.title} over steps` });
  for (const value of log ? decades(low, high) : ticks(low, high, 5)) {
    svg.append(drawn("path", { class: "grid", d: `M${left} ${y(value)} H${width - right}` }), drawn("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, compact(log ? 10 ** value : value)));
  }
  for (const step of ticks(first, last, 6)) svg.append(drawn("text", { x: x(step), y: height - bottom + 16, "text-anchor": "middle" }, step.toLocaleString("en")));
  svg.append(drawn("text", { x: (left + width - right) / 2, y: height - 3, "text-anchor": "middle" }, "steps"));
  entry.curves.forEach((curve, i) => {
    const path = curve.points.map(([step, value], j) => `${j ? "L" : "M"}${x(step).toFixed(1)} ${y(scaled(value)).toFixed(1)}`).join(" ");
    svg.append(drawn("path", { class: `curve c${i % 6}`, d: path, "stroke-dasharray": DASHES[i % DASHES.length] }));
    if (curve.points.length < 40) for (const [step, value] of curve.points) svg.append(drawn("circle", { class: `dot c${i % 6}`, cx: x(step), cy: y(scaled(value)), r: 2.5 }));
  });
  const cursor = drawn("path", { class: "cursor", d: "" });
  svg.append(cursor);
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect(), share = ((event.clientX - box.left) / box.width) * width;
    const step = first + ((share - left) / (width - left - right)) * (last - first);
    const near = (points) => points.reduce((best, point) => (Math.abs(point[0] - step) < Math.abs(best[0] - step) ? point : best));
    const at = entry.curves.filter((curve) => curve.points.length).map((curve) => [curve.name, near(curve.points)]);
    const nearest = near(at.map(([, point]) => point));
    cursor.setAttribute("d", `M${x(nearest[0])} ${top} V${height - bottom}`);
    reading.textContent = `step ${nearest[0].toLocaleString("en")}: ` + at.map(([name, point]) => `${name} ${compact(point[1])}`).join(", ");
  });
  svg.addEventListener("pointerleave", () => { cursor.setAttribute("d", ""); reading.textContent = ""; });
  return svg;
}

function runTable(entry) {
  const [head, ...rows] = entry.rows;
  const row = (cells, kind) => element("tr", {}, ...cells.map((cell, i) => element(kind, entry.numbers[i] ? { class: "number" } : {}, cell)));
  const body = rows.map((cells, i) => {
    const line = row(cells, "td");
    if (entry.of_circuits) {
      line.className = "choice";
      line.tabIndex = 0;
      const go = () => { show(i); document.querySelector("header").scrollIntoView(); };
      line.addEventListener("click", go);
      line.addEventListener("keydown", (event) => { if (event.key === "Enter") go(); });
    }
    return line;
  });
  const table = element("div", { class: "wide" }, element("table", {}, element("thead", {}, row(head, "th")), element("tbody", {}, ...body)));
  const long = rows.length > 24;
  const content = [element("p", { class: "quiet" }, entry.about), table];
  return long ? element("details", {}, element("summary", {}, `${entry.title}: ${rows.length} rows`), ...content) : element("div", {}, element("h2", {}, entry.title), ...content);
}

const RUN = DATA.run;
document.documentElement.classList.add("report");
$("run").hidden = false;
$("run").append(element("h1", {}, DATA.title), element("table", { class: "facts" }, element("tbody", {}, ...RUN.facts.map(([name, value]) => element("tr", {}, element("th", {}, name), element("td", {}, value))))));
if (RUN.charts.length) $("run").append(element("h2", {}, "curves"), element("div", { class: "charts" }, ...RUN.charts.map(chart)));
$("run").append(...RUN.tables.map(runTable));
if (RUN.settings) $("run").append(element("details", {}, element("summary", {}, "settings"), element("pre", { class: "code" }, RUN.settings)));
$("run").append(element("p", { class: "quiet" }, `${RUN.folder}; made by gossamer ${DATA.version}.`));
if (DATA.circuits.length) $("run").append(element("h2", {}, "circuits, drawn"));
