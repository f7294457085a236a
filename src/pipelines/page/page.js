"use strict";
// Draws the circuits in the page's data, and shows what is known of a node that one selects.
const DATA = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
const BOX = [46, 24], GROUP_BOX = [168, 24], LABELS = 120, MARGIN = 24;
let current, view, selected = null, stream = { upstream: false, downstream: false };

// An element with attributes and children; text is never read as markup.
function element(name, attributes = {}, ...children) {
  const out = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) out.setAttribute(key, value);
  out.append(...children);
  return out;
}
function drawn(name, attributes = {}, ...children) {
  const out = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) out.setAttribute(key, value);
  out.append(...children);
  return out;
}
const number = (x, digits = 3) => {
  if (x === null || x === undefined) return "–";
  const size = Math.abs(x);
  if (x !== 0 && (size < 1e-3 || size >= 1e5)) return x.toExponential(digits - 1).replace("-", "−").replace("e−", "e-");
  return x.toFixed(digits).replace("-", "−");
};
const percent = (x) => (x === null || x === undefined ? "–" : (100 * x).toFixed(1) + " %");
const shown = (text) => text.replace(/ /g, "␣").replace(/\n/g, "⏎");
const nameOf = (node) => `${node.site}[${node.index}]`;

// What follows from a circuit's lists, by node name.
function prepare(entry) {
  const nodes = entry.circuit.nodes.map((node) => ({ ...node, name: nameOf(node) }));
  const at = new Map(nodes.map((node, i) => [node.name, i]));
  const reads = nodes.map(() => []), feeds = nodes.map(() => []);
  entry.circuit.edges.forEach((edge, i) => {
    if (!at.has(edge.from) || !at.has(edge.to)) return;
    feeds[at.get(edge.from)].push(i);
    reads[at.get(edge.to)].push(i);
  });
  // Threads of the residual stream join neighbours on a channel, too.
  const channel = (node) => (/resid_delta|act_in|final_resid/.test(node.site) && node.index < entry.circuit.model.d_model ? node.index : null);
  const writes = (node) => /resid_delta/.test(node.site);
  const links = [];
  nodes.forEach((from, i) => nodes.forEach((to, j) => {
    if (i < j && writes(from) && !writes(to) && channel(from) !== null && channel(from) === channel(to)) links.push([i, j]);
  }));
  return { ...entry, nodes, at, reads, feeds, links };
}

function reach(start, forward) {
  const seen = new Set([start]), open = [start];
  while (open.length) {
    const i = open.pop();
    const near = (forward ? current.feeds : current.reads)[i].map((e) => current.at.get(current.circuit.edges[e][forward ? "to" : "from"]));
    for (const [a, b] of current.links) {
      if (forward && a === i) near.push(b);
      if (!forward && b === i) near.push(a);
    }
    for (const j of near) if (!seen.has(j)) { seen.add(j); open.push(j); }
  }
  return seen;
}

function show(which) {
  current = prepare(DATA.circuits[which]);
  selected = null;
  $("circuits").value = which;
  $("title").textContent = DATA.circuits.length > 1 ? "" : current.name;
  $("title").hidden = DATA.circuits.length > 1;
  draw();
  start();
  for (const kind of ["node", "edge"]) $(`${kind}-threshold`).value = sliderAt(kind, current.threshold);
  update();
  panel();
}

function draw() {
  const { layout, circuit } = current;
  const width = layout.width + LABELS + 2 * MARGIN, height = layout.height + 2 * MARGIN;
  const svg = drawn("svg", { role: "img", "aria-label": `The circuit of ${current.name}` });
  const scene = drawn("g", { id: "scene" });
  current.size = [width, height];
  const layers = new Map();
  for (const row of layout.rows) {
    if (row.layer !== null) layers.set(row.layer, [...(layers.get(row.layer) ?? []), row]);
    const y = MARGIN - layout.top + (row.top + row.bottom) / 2 + 4;
    scene.append(drawn("text", { class: "quiet", x: 14, y, "font-size": 11 }, row.name));
  }
  for (const [layer, rows] of layers) {
    const top = MARGIN - layout.top + Math.min(...rows.map((row) => row.top)) - 15, bottom = MARGIN - layout.top + Math.max(...rows.map((row) => row.bottom)) + 15;
    scene.prepend(drawn("rect", { class: "band", x: 4, y: top, width: width - 8, height: bottom - top, rx: 10 }));
    scene.append(drawn("text", { class: "quiet", x: 14, y: top + 14, "font-size": 11, "font-weight": 600 }, `layer ${layer}`));
  }
  const body = drawn("g", { transform: `translate(${LABELS - layout.left} ${MARGIN - layout.top})` });
  for (const frame of layout.frames) {
    const at = { class: "frame", x: frame.left, y: frame.top - 2, width: frame.right - frame.left, height: frame.bottom - frame.top + 8, rx: 8 };
    body.append(drawn("rect", at), drawn("text", { class: "quiet", x: frame.left + 6, y: frame.top + 10, "font-size": 9.5 }, `h${frame.head}`));
  }
  for (const line of layout.lines.filter((line) => line.channel !== null)) {
    body.append(drawn("path", { class: "thread", d: line.path, "data-channel": line.channel }));
  }
  for (const line of layout.lines.filter((line) => line.edge !== null)) {
    const edge = circuit.edges[line.edge];
    const path = drawn("path", { class: "edge", d: line.path, "data-edge": line.edge, "stroke-width": 1 + 4.5 * current.widths[line.edge] });
    path.style.stroke = edge.weight < 0 ? "var(--low)" : "var(--high)";
    hover(path, `${edge.from} → ${edge.to}\nweight ${number(edge.weight)}, effect when ablated ${number(edge.effect)}`);
    body.append(path);
  }
  for (const { bundle, path: d } of layout.lines.filter((line) => line.bundle)) {
    const path = drawn("path", { class: "edge bundle", d, "data-edges": bundle.edges.join(" "), "stroke-width": 1 + 4.5 * bundle.width });
    path.style.stroke = bundle.weight < 0 ? "var(--low)" : "var(--high)";
    hover(path, bundle.text);
    body.append(path);
  }
  const draw = { node: nodeBox, embedding: tokenBox, unembedding: tokenBox, group: groupBox };
  for (const box of layout.boxes) body.append(draw[box.kind](box));
  scene.append(body);
  svg.append(scene);
  $("drawing").replaceChildren(svg);
}

function nodeBox(box) {
  const node = current.nodes[box.at], left = box.x - BOX[0] / 2, part = current.separations[box.at];
  const group = drawn("g", { class: "node", "data-node": node.name, tabindex: 0, role: "button", "aria-label": node.name });
  const size = { x: left, y: box.top, width: BOX[0], height: BOX[1], rx: 6 };
  const tint = drawn("rect", { class: "tint", ...size });
  tint.style.fill = part < 0 ? "var(--low)" : "var(--high)";
  tint.style.fillOpacity = 0.45 * Math.abs(part);
  const kind = { attn_q: "q ", attn_k: "k ", attn_v: "v " }[node.kind] ?? "", share = current.importances[box.at], [wide, dark] = current.outlines[box.at];
  const outline = drawn("rect", { class: "box", ...size, "stroke-width": wide, "stroke-opacity": dark });
  const bar = drawn("rect", { class: "importance", x: left + 4, y: box.top + BOX[1] - 4.5, width: (BOX[0] - 8) * share * share, height: 2.5 });
  group.append(outline, tint, bar, drawn("text", { x: box.x, y: box.top + 14.5 }, kind + node.index));
  const difference = node.difference ? `\nclean − counterfactual ${number(node.difference.last)} at the last token, at most ${number(node.difference.largest)}` : "";
  annotate(group, node.name, size, box.x + 5);
  hover(group, `${node.name}\nin clean prompts ${number(node.positive.mean)}, in counterfactual ones ${number(node.negative.mean)}${difference}\ntask loss if ablated ${node.ablation_delta < 0 ? "" : "+"}${number(node.ablation_delta)}`);
  group.addEventListener("click", () => select(box.at));
  group.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); select(box.at); } });
  return group;
}

// A collapsed group: one box for all of its nodes.
function groupBox(box) {
  const group = drawn("g", { class: "collapsed", "data-group": box.at });
  const size = { x: box.x - GROUP_BOX[0] / 2, y: box.top, width: GROUP_BOX[0], height: GROUP_BOX[1], rx: 6 };
  const rect = drawn("rect", size);
  rect.style.stroke = rect.style.fill = groupColor(box.at);
  group.append(rect, drawn("text", { x: box.x, y: box.top + GROUP_BOX[1] / 2 + 4 }, box.text));
  const [name, items] = Object.entries(notes().groups)[box.at];
  hover(group, `${name}\n${items.join("\n")}`);
  return group;
}

const groupColor = (number) => `rgb(${DATA.groups[number % DATA.groups.length]})`;
const notes = () => ({ labels: {}, groups: {}, ...current.circuit.annotations });
const groupOf = (item) => Object.values(notes().groups).findIndex((items) => items.includes(item));

// The label of a box, above it, and a frame in the color of its group.
function annotate(group, item, size, x) {
  const at = groupOf(item), label = notes().labels[item];
  if (at >= 0) {
    const frame = drawn("rect", { class: "frame-of-group", x: size.x - 4, y: size.y - 4, width: size.width + 8, height: size.height + 8, rx: 9 });
    frame.style.stroke = groupColor(at);
    group.prepend(frame);
  }
  if (label) group.append(drawn("text", { class: "label", x, y: size.y - 7 }, label));
}

function tokenBox(box) {
  const above = box.kind === "unembedding", entry = current.circuit[above ? "unembeddings" : "embeddings"][box.at];
  const answers = [current.circuit.task.target.id, current.circuit.task.alternative.id];
  const rank = (token) => (above && answers.includes(token.id) ? answers.indexOf(token.id) : answers.length);
  const tokens = [...entry.tokens].sort((a, b) => rank(a) - rank(b)).slice(0, 3);
  const wide = 60, y = above ? box.bottom - 20 : box.top;
  const group = drawn("g", { class: "tokens", "data-channel": entry.channel });
  group.append(drawn("rect", { x: box.x - wide / 2, y, width: wide, height: 20, rx: 10 }), drawn("text", { class: "quiet", x: box.x, y: y + 14 }, String(entry.channel)));
  tokens.forEach((token, i) => {
    const baseline = above ? y - 5 - 13 * (tokens.length - 1 - i) : y + 32 + 13 * i;
    const text = drawn("text", { x: box.x, y: baseline, "font-size": 10, "font-weight": answers.includes(token.id) ? 700 : 400 }, `${shown(token.text).slice(0, 8)} ${number(token.weight, 2)}`);
    text.style.fill = token.weight < 0 ? "var(--low)" : "var(--high)";
    group.append(text);
  });
  annotate(group, `${box.kind}[${entry.channel}]`, { x: box.x - wide / 2, y, width: wide, height: 20 }, box.x + 5);
  hover(group, `${box.kind}, residual channel ${entry.channel}\n` + entry.tokens.map((token) => `${shown(token.text)}  ${number(token.weight)}`).join("\n"));
  return group;
}

function hover(target, text) {
  target.addEventListener("pointerenter", () => {
    $("tip").textContent = text;
    $("tip").hidden = false;
    if (target.dataset.node) highlight(target.dataset.node);
  });
  target.addEventListener("pointermove", (event) => {
    const tip = $("tip");
    tip.style.left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8) + "px";
    tip.style.top = Math.min(event.clientY + 16, innerHeight - tip.offsetHeight - 8) + "px";
  });
  target.addEventListener("pointerleave", () => { $("tip").hidden = true; update(); });
}

// The nodes that are in view, by thresholds and direction.
function visible() {
  const least = threshold("node"), all = current.nodes.map((_, i) => i);
  let inside = new Set(all.filter((i) => current.foreign || Math.abs(current.nodes[i].ablation_delta) >= least));
  if (selected !== null && (stream.upstream || stream.downstream)) {
    const near = new Set([...(stream.upstream ? reach(selected, false) : []), ...(stream.downstream ? reach(selected, true) : [])]);
    inside = new Set([...inside].filter((i) => near.has(i)));
  }
  if (selected !== null) inside.add(selected);
  return inside;
}

// The edges that a line draws: one, or all between a collapsed group and another box.
const edgesOf = (path) => (path.dataset.edges ?? path.dataset.edge).split(" ").map((i) => current.circuit.edges[i]);
const sizeOf = (edge) => Math.abs(current.by_effect ? edge.effect : edge.weight);
const sizesOf = (kind) => (kind === "node" ? current.nodes.map((node) => Math.abs(node.ablation_delta)) : current.circuit.edges.map(sizeOf)).sort((a, b) => a - b);
// Sliders go by rank: half way hides half of them.
function sliderAt(kind, least) {
  const sizes = sizesOf(kind), below = sizes.filter((size) => size < least).length;
  // Widths by weight have another unit.
  return kind === "edge" && !current.by_effect ? 0 : Math.ceil((100 * below) / Math.max(1, sizes.length));
}
function threshold(kind) {
  const sizes = sizesOf(kind);
  const share = $(`${kind}-threshold`).value / 100;
  return share === 0 || !sizes.length ? 0 : sizes[Math.min(sizes.length - 1, Math.floor(share * sizes.length))];
}

function update() {
  const inside = visible(), least = threshold("edge"), found = search();
  $("node-least").textContent = number(threshold("node"));
  $("edge-least").textContent = number(least);
  for (const group of document.querySelectorAll("#scene .node")) {
    const i = current.at.get(group.dataset.node);
    group.classList.toggle("hidden", !inside.has(i));
    group.classList.toggle("selected", i === selected);
    group.classList.toggle("hit", found.nodes.has(i));
    group.classList.remove("faded");
  }
  for (const group of document.querySelectorAll("#scene .tokens")) {
    group.classList.toggle("hit", found.channels.has(Number(group.dataset.channel)));
    group.classList.remove("faded");
  }
  for (const path of document.querySelectorAll("#scene .edge")) {
    const bundle = path.classList.contains("bundle"), edges = edgesOf(path);
    const inView = edges.filter((edge) => [edge.from, edge.to].every((name) => inside.has(current.at.get(name))));
    // As wide as the sum is what the threshold asks.
    const size = bundle ? Math.abs(edges.reduce((sum, edge) => sum + (current.by_effect ? edge.effect : edge.weight), 0)) : sizeOf(edges[0]);
    path.classList.toggle("hidden", !inView.length || size < least);
    path.classList.remove("faded");
  }
  for (const id of ["upstream", "downstream"]) $(id).setAttribute("aria-pressed", stream[id]);
  if (selected !== null) highlight(current.nodes[selected].name);
}

// Fades all edges and nodes that do not touch a node.
function highlight(name) {
  const near = new Set([name]);
  for (const path of document.querySelectorAll("#scene .edge")) {
    const touching = edgesOf(path).filter((edge) => edge.from === name || edge.to === name);
    path.classList.toggle("faded", !touching.length);
    for (const edge of touching) near.add(edge.from).add(edge.to);
  }
  const i = current.at.get(name);
  for (const [a, b] of current.links) if (a === i || b === i) near.add(current.nodes[a].name).add(current.nodes[b].name);
  if (selected !== null && (stream.upstream || stream.downstream)) return document.querySelectorAll("#scene .edge").forEach((path) => path.classList.remove("faded"));
  for (const group of document.querySelectorAll("#scene .node")) group.classList.toggle("faded", !near.has(group.dataset.node));
}

function search() {
  const text = $("search").value.trim().toLowerCase(), found = { nodes: new Set(), channels: new Set() };
  $("hits").textContent = "";
  if (!text) return found;
  current.nodes.forEach((node, i) => { if (`${node.name} ${notes().labels[node.name] ?? ""}`.toLowerCase().includes(text)) found.nodes.add(i); });
  for (const entry of [...current.circuit.embeddings, ...current.circuit.unembeddings]) {
    if (entry.tokens.some((token) => shown(token.text).toLowerCase().includes(text) || token.text.toLowerCase().includes(text))) found.channels.add(entry.channel);
  }
  $("hits").textContent = `${found.nodes.size} nodes, ${found.channels.size} channels`;
  return found;
}

function select(i) {
  selected = i === selected ? null : i;
  if (selected === null) stream = { upstream: false, downstream: false };
  update();
  panel();
}

// Rows of [text, ...numbers], or elements.
function table(head, rows) {
  const cell = (kind) => (value, i) => element(kind, i ? { class: "number" } : {}, value);
  return element("table", {}, element("thead", {}, element("tr", {}, ...head.map(cell("th")))), element("tbody", {}, ...rows.map((row) => element("tr", {}, ...row.map(cell("td"))))));
}

function link(name) {
  const out = element("a", { class: "node-link", tabindex: 0, role: "button" }, name);
  const go = () => { selected = null; select(current.at.get(name)); };
  out.addEventListener("click", go);
  out.addEventListener("keydown", (event) => { if (event.key === "Enter") go(); });
  return out;
}

function panel() {
  $("panel").replaceChildren(...(selected === null ? overview() : details(current.nodes[selected])));
  $("panel").scrollTop = 0;
}

function overview() {
  const { circuit, foreign } = current, { task, losses, counts, calibration, pruned_edges: pruned = [] } = circuit;
  const out = [element("h2", {}, current.name), element("p", {}, task.description), element("p", { class: "quiet" }, `${counts.nodes} nodes, ${counts.edges} edges (${counts.edges_with_biases} with biases)${pruned.length ? `, without ${pruned.length} pruned edge${pruned.length > 1 ? "s" : ""}` : ""}, of ${circuit.model.path || "a published model"}`)];
  const prompt = (text, answer, style) => {
    const code = element("div", { class: "code" }, text, element("b", { class: style }, shown(answer)));
    return code;
  };
  if (task.positive) out.push(element("h3", {}, "a clean prompt and its answer"), prompt(task.positive, task.target.text, "high"), element("h3", {}, "the counterfactual one"), prompt(task.negative, task.alternative.text, "low"));
  if (!foreign) {
    const row = (name, set, key) => [name, number(set[key]), number(set[`${key}_uncalibrated`]), percent(set[`accuracy_${key}`])];
    for (const [name, set] of [["held-out pairs", losses.test], ["pairs that it was chosen by", losses.train]]) {
      out.push(element("h3", {}, name), table(["", "loss", "uncalibrated", "accuracy"], [["model", "", number(set.model), percent(set.accuracy_model)], row("circuit", set, "circuit"), row("complement", set, "ablated")]));
    }
    out.push(element("p", { class: "quiet" }, `Loss in nats, of the choice between the two answers; chance is 0.693. Calibrated: logit differences times ${number(calibration.scale)}${calibration.shift ? `, shifted by ${number(calibration.shift)}` : ""}. The complement is the model without the circuit.`));
  }
  const groups = Object.entries(notes().groups);
  if (groups.length) out.push(element("h3", {}, "groups"), ...groups.map(([name, items], i) => {
    const line = element("p", { class: "group-name" }, `${name}: `, ...items.flatMap((item, j) => [j ? ", " : "", current.at.has(item) ? link(item) : item]));
    line.style.borderColor = groupColor(i);
    return line;
  }));
  const important = [...current.nodes].sort((a, b) => Math.abs(b.ablation_delta) - Math.abs(a.ablation_delta)).slice(0, 12);
  out.push(element("h3", {}, foreign ? "nodes" : "the nodes that matter most"), table(["node", "task loss if ablated"], important.map((node) => [link(node.name), number(node.ablation_delta)])));
  out.push(element("h3", {}, "colors"), element("p", { class: "quiet" }, "Blue nodes are higher in clean prompts, orange ones in counterfactual prompts: at the last token, whose logits decide, or where the prompts differ most. Outline and bar: the change of the task loss if the node is ablated. Blue edges have a positive weight, orange ones a negative; wider is ", current.by_effect ? "a larger effect when ablated." : "a larger weight.", " Grey threads are channels of the residual stream."));
  out.push(element("h3", {}, "keys"), element("p", { class: "quiet" }, "/ search · arrows from node to node · Enter selects · u, d upstream, downstream · + − 0 zoom · n, p next, previous circuit · t light or dark · Esc back"), element("p", { class: "quiet" }, `Made by gossamer ${DATA.version}.`));
  return out;
}

function details(node) {
  const { circuit } = current, at = current.at.get(node.name);
  const out = [element("h2", {}, node.name)], label = notes().labels[node.name], inGroup = groupOf(node.name);
  if (label) out.push(element("p", {}, element("b", {}, label)));
  if (inGroup >= 0) out.push(element("p", { class: "quiet" }, `in the group ${Object.keys(notes().groups)[inGroup]}`));
  if (node.head !== null && node.head !== undefined) out.push(element("p", { class: "quiet" }, `head ${node.head}, channel ${node.channel} of it`));
  const bias = circuit.biases.find((bias) => bias.node === node.name);
  out.push(table(["", "mean", "least", "most"], [["clean prompts", number(node.positive.mean), number(node.positive.min), number(node.positive.max)], ["counterfactual", number(node.negative.mean), number(node.negative.min), number(node.negative.max)]]));
  out.push(element("p", {}, `Task loss if ablated: ${node.ablation_delta < 0 ? "" : "+"}${number(node.ablation_delta)}; its mean in text ${number(node.mean)}${bias ? `; bias ${number(bias.value)}` : ""}`));
  for (const [title, edges, end] of [["reads", current.reads[at], "from"], ["is read by", current.feeds[at], "to"]]) {
    if (!edges.length) continue;
    const sorted = edges.map((i) => circuit.edges[i]).sort((a, b) => sizeOf(b) - sizeOf(a));
    out.push(element("h3", {}, title), table(["node", "weight", "effect"], sorted.map((edge) => [link(edge[end]), number(edge.weight), number(edge.effect)])));
  }
  for (const [title, list] of [["tokens that write its channel", circuit.embeddings], ["tokens that its channel writes", circuit.unembeddings]]) {
    const entry = /resid_delta|act_in|final_resid/.test(node.site) && list.find((entry) => entry.channel === node.index);
    if (entry) out.push(element("h3", {}, title), table(["token", "weight"], entry.tokens.map((token) => [element("code", {}, shown(token.text)), number(token.weight)])));
  }
  const known = current.statistics[node.name];
  if (known) {
    for (const [title, set, style] of [["in text", known.corpus, ""], ["in clean prompts", known.clean, ""], ["in counterfactual prompts", known.counterfactual, "of-counterfactual"]]) {
      if (set.count) out.push(element("h3", {}, `activations ${title}`), histogram(set, known, style));
    }
  }
  current.prompts.forEach((prompt, i) => {
    if (i === 0) out.push(element("h3", {}, "in prompts"));
    const values = prompt.activations[node.name];
    if (values) out.push(heat(prompt.tokens, values, prompt.tokens.length - 1));
  });
  if (node.head !== null && node.head !== undefined && current.prompts.length) out.push(...attention(node));
  for (const quantile of known ? known.corpus.quantiles : []) {
    for (const [end, side] of [["top", "from the top"], ["bottom", "from the bottom"]]) {
      if (!quantile[end].snippets.length) continue;
      out.push(element("h3", {}, `text ${percent(quantile.quantile)} ${side}: ${number(quantile[end].value)}`));
      out.push(...quantile[end].snippets.map((snippet) => heat(snippet.tokens, snippet.activations, snippet.position)));
    }
  }
  return out;
}

function histogram(set, known, style) {
  const bars = drawn("svg", { class: `bars ${style}`, viewBox: `0 0 ${set.histogram.length} 30`, preserveAspectRatio: "none", width: "100%", height: 56, role: "img", "aria-label": "histogram" });
  // Logarithmic, so that rare values are seen.
  const most = Math.log1p(Math.max(1, ...set.histogram));
  set.histogram.forEach((count, i) => {
    const high = (30 * Math.log1p(count)) / most;
    const bar = drawn("rect", { x: i + 0.05, y: 30 - high, width: 0.9, height: high });
    bar.append(drawn("title", {}, String(count)));
    bars.append(bar);
  });
  const axis = element("div", { class: "axis" }, element("span", {}, number(known.low)), element("span", {}, `${percent(1 - set.zeros / set.count)} not zero · mean ${number(set.mean)} · log scale`), element("span", {}, number(known.high)));
  return element("div", {}, bars, axis);
}

// Tokens on the color of their activation.
function heat(tokens, values, here) {
  const most = Math.max(1e-30, ...values.map(Math.abs)), out = element("div", { class: "code" });
  tokens.forEach((id, i) => {
    const share = Math.round((60 * Math.abs(values[i])) / most);
    const span = element("span", { title: number(values[i]) }, (current.tokens[id] ?? `<${id}>`).replace(/\\n/g, "⏎\n"));
    if (share > 0) span.style.background = `color-mix(in srgb, var(${values[i] < 0 ? "--low" : "--high"}) ${share}%, transparent)`;
    if (i === here) span.className = "here";
    out.append(span);
  });
  return out;
}

function attention(node) {
  const out = [element("h3", {}, `attention of head ${node.head}, from the last token of each prompt`)];
  for (const prompt of current.prompts) {
    const pattern = prompt.attention.find((entry) => entry.layer === node.layer && entry.head === node.head);
    if (!pattern || !pattern.rows.length) continue;
    // Any token may be asked about; at first it is the last.
    const area = element("div", {});
    const ask = (query) => {
      const shares = prompt.tokens.map(() => 0);
      for (const [key, share] of pattern.rows[query]) shares[key] = share;
      const line = heat(prompt.tokens, shares, query);
      [...line.children].forEach((span, i) => span.addEventListener("click", () => ask(i)));
      area.replaceChildren(line);
    };
    ask(prompt.tokens.length - 1);
    out.push(area);
  }
  out.push(element("p", { class: "quiet" }, "Click a token to see what it attends to."));
  return out;
}

// Pixels per unit at the start, at least: text of 11 units can be read.
const LEGIBLE = 0.8;
// The whole circuit, or its middle where the whole would be too small to read.
function start() {
  const area = $("drawing").getBoundingClientRect();
  fit();
  if (!area.width || Math.min(area.width / view.width, area.height / view.height) >= LEGIBLE) return;
  const centred = (size, part) => ({ at: (size - Math.min(size, part)) / 2, length: Math.min(size, part) });
  const x = centred(view.width, area.width / LEGIBLE), y = centred(view.height, area.height / LEGIBLE);
  view = { x: x.at, y: y.at, width: x.length, height: y.length };
  frame();
}
function fit() {
  view = { x: 0, y: 0, width: current.size[0], height: current.size[1] };
  frame();
}
function frame() {
  $("drawing").firstChild.setAttribute("viewBox", `${view.x} ${view.y} ${view.width} ${view.height}`);
}
function zoom(factor, x = 0.5, y = 0.5) {
  const limit = Math.max(...current.size), next = Math.min(Math.max(view.width * factor, 80), 6 * limit), share = next / view.width;
  view.x += view.width * (1 - share) * x;
  view.y += view.height * (1 - share) * y;
  view.width *= share;
  view.height *= share;
  frame();
}

function pointers(area) {
  let from = null;
  area.addEventListener("wheel", (event) => {
    event.preventDefault();
    const box = area.getBoundingClientRect();
    zoom(Math.exp(event.deltaY / 500), (event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
  }, { passive: false });
  area.addEventListener("pointerdown", (event) => { from = [event.clientX, event.clientY]; });
  addEventListener("pointermove", (event) => {
    if (!from) return;
    const scale = Math.max(view.width / area.clientWidth, view.height / area.clientHeight);
    view.x -= (event.clientX - from[0]) * scale;
    view.y -= (event.clientY - from[1]) * scale;
    from = [event.clientX, event.clientY];
    frame();
  });
  addEventListener("pointerup", () => { from = null; });
}

// The next node in a direction, by where its box is.
function step(dx, dy) {
  const boxes = current.layout.boxes.filter((box) => box.kind === "node" && visible().has(box.at));
  if (!boxes.length) return;
  const focused = document.activeElement.closest?.(".node"), at = focused ? current.at.get(focused.dataset.node) : selected;
  const here = boxes.find((box) => box.at === at);
  const cost = (box) => {
    const x = (box.x - here.x) * (dx || 1), y = (box.top - here.top) * (dy || 1);
    const [along, across] = dx ? [x, Math.abs(y)] : [y, Math.abs(x)];
    return along > 0.5 ? along + 3 * across : Infinity;
  };
  const next = here ? boxes.filter((box) => cost(box) < Infinity).sort((a, b) => cost(a) - cost(b))[0] : boxes[0];
  if (next) document.querySelector(`#scene .node[data-node="${current.nodes[next.at].name}"]`).focus();
}

function toggle(id) {
  if (selected === null) return;
  stream[id] = !stream[id];
  update();
}
function theme() {
  document.documentElement.classList.toggle("dark");
}

const KEYS = {
  "/": () => $("search").focus(), "+": () => zoom(0.8), "=": () => zoom(0.8), "-": () => zoom(1.25), "0": fit, t: theme,
  u: () => toggle("upstream"), d: () => toggle("downstream"),
  n: () => show((Number($("circuits").value) + 1) % DATA.circuits.length),
  p: () => show((Number($("circuits").value) + DATA.circuits.length - 1) % DATA.circuits.length),
  ArrowLeft: () => step(-1, 0), ArrowRight: () => step(1, 0), ArrowUp: () => step(0, -1), ArrowDown: () => step(0, 1),
  Escape: () => { selected = null; stream = { upstream: false, downstream: false }; $("search").value = ""; update(); panel(); },
};
addEventListener("keydown", (event) => {
  const typing = event.target.matches?.("input, select"), act = KEYS[event.key];
  if (!act || !current || event.ctrlKey || event.metaKey || event.altKey || (typing && event.key !== "Escape") || ($("panel").contains(event.target) && event.key.startsWith("Arrow"))) return;
  event.preventDefault();
  if (event.key === "Escape" && typing) event.target.blur();
  act();
});

DATA.circuits.forEach((entry, i) => $("circuits").append(element("option", { value: i }, `${entry.name} (${entry.circuit.counts.nodes} nodes, ${entry.circuit.counts.edges} edges)`)));
$("circuits").hidden = DATA.circuits.length < 2;
$("circuits").addEventListener("change", () => show(Number($("circuits").value)));
for (const id of ["search", "node-threshold", "edge-threshold"]) $(id).addEventListener("input", update);
$("upstream").addEventListener("click", () => toggle("upstream"));
$("downstream").addEventListener("click", () => toggle("downstream"));
$("smaller").addEventListener("click", () => zoom(1.25));
$("larger").addEventListener("click", () => zoom(0.8));
$("whole").addEventListener("click", fit);
$("theme").addEventListener("click", theme);
if (matchMedia("(prefers-color-scheme: dark)").matches) theme();
addEventListener("beforeprint", () => { document.documentElement.classList.remove("dark"); if (current) fit(); });
pointers($("drawing"));
if (DATA.circuits.length) show(0);
else document.querySelectorAll("header, main").forEach((part) => { part.hidden = true; });
